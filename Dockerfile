# The image of Connector: `docker build --tag connector .`; docs/deploy.md says how to run it.
# The base is any Debian with Python 3.10 or later among its packages, or what is made from one. Its digest says which files
# it is, whatever the tag says later; docs/deploy.md says how to take a newer one.
ARG BASE_IMAGE=debian:bookworm-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

# 1. The dependencies, by hash and as wheels: there is no compiler. pip is in a venv of its own, which stays behind.
FROM ${BASE_IMAGE} AS dependencies
# The time for what keeps one, in seconds since 1970, so that one can build the same again; unset, it is the present.
ARG SOURCE_DATE_EPOCH
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/connector/venv
COPY requirements/runtime.txt /tmp/
# Who reaches a package index through a proxy or a mirror gives the build a pip.conf, and authorities to name in it, as
# secrets: they are there during this step and nowhere in the image.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=authorities,target=/run/authorities.crt \
    /opt/pip/bin/python -m pip --python /opt/connector/venv/bin/python install \
        --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes --requirement /tmp/runtime.txt
COPY LICENSE image/healthcheck.py /opt/connector/
COPY image/connector.py /opt/connector/venv/bin/connector
COPY app /opt/connector/app
COPY agents /opt/connector/agents
COPY tables /opt/connector/tables
# Compiled here, as nothing can be written later; by the source's hash, so that it does not depend on when.
RUN /opt/connector/venv/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/connector \
    && chmod -R a+rX,go-w /opt/connector

# 2. What runs: Python without pip, the authorities that TLS trusts, and what was made above.
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
# What the base has is brought to the state of today, as a base that stays the same does not get security updates.
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get upgrade --yes \
    && apt-get install --yes --no-install-recommends python3 ca-certificates \
    # Nobody in here becomes root again.
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    # A number, as Kubernetes cannot tell from a name that it is not root.
    && groupadd --gid 10001 connector \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin connector \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data \
    # Logs, caches and copies of what was before: nobody needs them, and they differ from build to build.
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig/aux-cache /var/log/apt \
    && rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /var/lib/dpkg/*-old /var/cache/debconf/*-old \
    && find /var/log -type f -delete
COPY --from=dependencies /opt/connector /opt/connector

ENV PATH=/opt/connector/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RUN_MODE=PRODUCTION \
    DB_PERSIST_PATH=/data \
    WEB_HOST=::
# Not /data: Python looks for modules in the working directory, and data must never become code.
WORKDIR /opt/connector
USER 10001:10001
# The messages that Kafka does not have yet. Without a volume of a name they are gone with the container.
VOLUME /data
EXPOSE 6066
# A start may have a large table to open. Kubernetes has probes of its own and does not look here.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/bin/python3", "-I", "-S", "/opt/connector/healthcheck.py"]
# No shell in between: SIGTERM reaches the worker, which then stops in order.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/connector/venv/bin/connector"]
CMD ["run"]

ARG BASE_IMAGE
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Connector" \
      org.opencontainers.image.description="A store-and-forward bridge from MQTT to Kafka" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
