"""Complete a text, at once and as a stream.

OPENAI_BASE_URL and OPENAI_API_KEY (VLLM_API_KEY of .env) say where; the client reads them itself.
"""

import os

from openai import OpenAI

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "none")  # the client insists on one
client = OpenAI()
model = client.models.list().data[0].id

answer = client.completions.create(model=model, prompt="San Francisco is a", max_tokens=32, temperature=0)
print("Completion:", answer.choices[0].text)

print("Stream:", end="", flush=True)
for event in client.completions.create(
    model=model, prompt="San Francisco is a", max_tokens=32, temperature=0, stream=True
):
    print(event.choices[0].text, end="", flush=True)
print()
