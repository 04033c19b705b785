"""Fake OpenAI-compatible engine with exact timing and every fault on demand, which reports its true timing."""
