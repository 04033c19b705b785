# Prometheus with this project's rules in it: hosts of a swarm have no checkout to mount.
ARG PROMETHEUS_IMAGE
FROM ${PROMETHEUS_IMAGE}
COPY --chmod=755 prometheus /etc/prometheus
ENTRYPOINT ["sh", "/etc/prometheus/start.sh"]
