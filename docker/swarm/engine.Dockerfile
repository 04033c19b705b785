# The engine with this project's files in it: hosts of a swarm have no checkout to mount.
ARG ENGINE_IMAGE
FROM ${ENGINE_IMAGE}
COPY --chmod=755 vllm /opt/headroom
COPY --chmod=755 vllm/chat-templates /etc/headroom/chat-templates
ENTRYPOINT ["python3", "/opt/headroom/serve.py"]
