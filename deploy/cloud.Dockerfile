# The cloud: answers with the large model, keeps what devices tell, offers them signed models.
#
#   docker build -f deploy/cloud.Dockerfile -t duetto-cloud .
#   docker build -f deploy/cloud.Dockerfile -t duetto-cloud:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
# torch comes from an index of its own: for processors alone by default, since what PyPI has brings gigabytes for GPUs.
# With a GPU the host needs the NVIDIA container toolkit, nothing in the image: torch's wheels bring CUDA's libraries.
# Everything else is what constraints.txt says, which is what the tests ran with.

FROM node:22-bookworm-slim AS page
WORKDIR /src
COPY web web
RUN npm --prefix web ci --no-audit --no-fund --ignore-scripts && npm --prefix web run build

FROM python:3.12-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY duetto duetto
COPY --from=page /src/duetto/cloud/page duetto/cloud/page
COPY --from=page /src/duetto/cloud/console duetto/cloud/console
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/duetto \
    && /opt/duetto/bin/pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)" \
    && /opt/duetto/bin/pip install -c constraints.txt '.[cloud,postgres,s3,train,onnx]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/duetto /opt/duetto
RUN useradd --uid 10001 --create-home duetto && install -d -o duetto /var/lib/duetto
ENV PATH=/opt/duetto/bin:$PATH PYTHONUNBUFFERED=1 DUETTO_CLOUD=/var/lib/duetto/cloud
USER 10001
WORKDIR /var/lib/duetto
VOLUME /var/lib/duetto
EXPOSE 8443 8444 8080 8090
ENTRYPOINT ["duetto"]
CMD ["cloud", "--large", "/var/lib/duetto/large.onnx", "--admin", "127.0.0.1:8080"]
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=5)"]
