# What `make install` installs, as an image: docs/install.md#docker. PyTorch's wheels bring CUDA; of the machine a GPU
# needs the driver alone.
FROM python:3.11-slim

# git: the report tells the commit. gcc: Triton compiles kernels for a GPU
RUN apt-get update && apt-get install --yes --no-install-recommends gcc git libc6-dev && rm -rf /var/lib/apt/lists/*

WORKDIR /hiddencost
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m pip install --disable-pip-version-check --quiet --progress-bar off --no-cache-dir \
        --constraint constraints.txt --editable '.[dev]'
COPY . .

# for `docker run --user`, who has neither name nor home here, and a checkout that is mounted, which is another user's
ENV HOME=/tmp/home USER=hiddencost
RUN mkdir --mode 1777 /tmp/home && git config --system --add safe.directory /hiddencost
CMD ["hiddencost", "plan"]
