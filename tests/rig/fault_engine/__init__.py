"""An OpenAI-compatible server that generates nothing: exact timing, every fault on demand, and the truth about both."""
