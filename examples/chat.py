"""Ask a question, at once and as a stream.

OPENAI_BASE_URL and OPENAI_API_KEY (VLLM_API_KEY of .env) say where; the client reads them itself.
"""

import os

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

os.environ.setdefault("OPENAI_BASE_URL", "http://localhost:8000/v1")
os.environ.setdefault("OPENAI_API_KEY", "none")  # the client insists on one
client = OpenAI()
model = client.models.list().data[0].id
messages: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]

answer = client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0)
print("Answer:", answer.choices[0].message.content)

print("Stream: ", end="", flush=True)
for event in client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0, stream=True):
    print(event.choices[0].delta.content or "", end="", flush=True)
print()
