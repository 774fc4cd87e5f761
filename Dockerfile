# One image for every part of DFS: namenode, datanode, command line, mount.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
# One virtual environment, exactly as locked; the final image gets it without pip's caches and without a compiler.
RUN python3 -m venv /opt/dfs
COPY requirements/runtime.lock /tmp/runtime.lock
RUN /opt/dfs/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-compile \
        --require-hashes -r /tmp/runtime.lock \
    && /opt/dfs/bin/python -m pip uninstall -y --quiet pip \
    && find /opt/dfs -depth -name __pycache__ -type d -exec rm -r {} +
COPY server.py dfs.py name_node.py data_node.py http_client.py /opt/dfs/app/
COPY dfslib /opt/dfs/app/dfslib
RUN /opt/dfs/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/dfs/lib /opt/dfs/app

FROM ${BASE_IMAGE}
RUN groupadd --gid 8180 dfs && useradd --uid 8180 --gid dfs --no-create-home --home-dir /data --shell /usr/sbin/nologin dfs \
    && mkdir /data && chown dfs:dfs /data
COPY --from=build /opt/dfs /opt/dfs
ENV PATH=/opt/dfs/bin:/opt/dfs/app:$PATH \
    PYTHONPATH=/opt/dfs/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DFS_DB_PATH=/data/namenode \
    DFS_FS_ROOT=/data/blocks
USER dfs
VOLUME /data
EXPOSE 8180
# Exec form: SIGTERM arrives at the server itself, which finishes what runs and tells the namenode.
ENTRYPOINT ["/opt/dfs/bin/python"]
CMD ["/opt/dfs/app/server.py"]
# Swarm ends what is not healthy: the limits are those of a process that hangs, not of a host that has too much to do.
# A datanode is healthy once the cluster is whole with it, which may take copies of hours; from then on, while it answers.
HEALTHCHECK --interval=5s --timeout=30s --start-period=24h --retries=6 \
    CMD ["/opt/dfs/bin/python", "-I", "-S", "/opt/dfs/app/dfslib/runtime/healthcheck.py"]
