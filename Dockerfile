# Builds the image of one package: --build-arg PACKAGE=tidewire-ingestion, say. `make images` builds them all.
#
# An image is the base and three layers: what all packages depend on, which the images share; what this package
# depends on besides; our own code. So a changed line of code rebuilds and loads a few hundred kilobytes.
# BASE_IMAGE has Python 3.12 or newer and, for the stages that build, pip and the certificates to reach PyPI by.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

# What decides over the dependencies, apart from the code: as long as it is the same, their layers are too.
FROM ${BASE_IMAGE} AS manifests
COPY . /tree
RUN cd /tree && mkdir /manifests \
 && cp --parents uv.lock pyproject.toml .python-version libs/*/pyproject.toml services/*/pyproject.toml /manifests \
 && cp --parents scripts/uv scripts/find-python scripts/get_uv.py scripts/image_tree.py /manifests \
 && find /manifests -exec touch -h -d @0 {} +

FROM ${BASE_IMAGE} AS common
ARG SOURCE_DATE_EPOCH=0
ENV UV_PROJECT_ENVIRONMENT=/app UV_LINK_MODE=copy UV_NO_PROGRESS=1 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY --from=manifests /manifests ./
RUN \
    scripts/uv sync --quiet --frozen --no-dev --no-editable --no-install-workspace \
    --package tidewire-kit --extra otel \
 && python3 scripts/image_tree.py finish /app /app \
 && python3 scripts/image_tree.py list /app /common.list

FROM common AS own
ARG PACKAGE LEAVE_OUT="--no-install-package pandas --no-install-package shapely --no-install-package icalendar"
# bokeh-sampledata is there for its files; what it computes with is not.
RUN \
    scripts/uv sync --quiet --inexact --frozen --no-dev --no-editable --no-install-workspace ${LEAVE_OUT} \
    --package "${PACKAGE}" \
 && python3 scripts/image_tree.py added /common.list /app /extra \
 && python3 scripts/image_tree.py list /app /extra.list
COPY . .
RUN \
    scripts/uv sync --quiet --inexact --frozen --no-dev --no-editable ${LEAVE_OUT} --package "${PACKAGE}" \
 && python3 scripts/image_tree.py start "${PACKAGE}" /app \
 && scripts/uv export --quiet --preview-features sbom-export --frozen --no-dev --format cyclonedx1.5 \
    --package "${PACKAGE}" --package tidewire-kit --extra otel --prune pandas --prune shapely --prune icalendar \
    --output-file /tmp/sbom.json >/dev/null \
 && python3 scripts/image_tree.py sbom "${PACKAGE}" /tmp/sbom.json /app/sbom.cdx.json \
 && python3 scripts/image_tree.py added /extra.list /app /own

FROM ${BASE_IMAGE} AS runtime
# Nothing in the image installs anything.
RUN rm -rf /usr/local/bin/pip* /usr/bin/pip* /usr/local/lib/python3*/site-packages/pip* \
    /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels \
    /usr/lib/python3/dist-packages/pip* /usr/lib/python3/dist-packages/setuptools* \
    /usr/lib/python3/dist-packages/pkg_resources* /usr/lib/python3/dist-packages/wheel* /root/.cache
COPY --from=common /app /app
COPY --from=own /extra /app
COPY --from=own /own /app
ENV PATH=/app/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["/app/bin/start"]
ARG PACKAGE VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="${PACKAGE}" \
      org.opencontainers.image.vendor="Tidewire" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
