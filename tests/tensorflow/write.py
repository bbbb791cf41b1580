"""Writes the checkpoints beside this file with TensorFlow, which the project does not need otherwise.

    python3.11 -m venv /tmp/tensorflow && /tmp/tensorflow/bin/pip install tensorflow-cpu==2.15.1
    git clone https://github.com/google-research/rigl /tmp/rigl
    /tmp/tensorflow/bin/python tests/tensorflow/write.py /tmp/rigl rex_gym-0.2.7.tar.gz

`variables.tar.gz`: a variable of each kind, in two data files. `network.tar.gz` and `uniform.tar.gz`: RigL's own
ResNet-50 (rigl/imagenet_resnet/resnet_model.py, unchanged), 64 times as narrow, pruned, with the logits that
TensorFlow computes of an image; of the second the stem is not pruned. What the code takes from tensorflow.contrib,
which TensorFlow 2 has not, is written out below, by TensorFlow 1.15's contrib/model_pruning/python/layers/layers.py
and core_layers.py and contrib/framework/python/ops/variables.py. Weights are multiples of 1/8, which are exact and
take little space.

`tensorflow1.tar.gz`: of a checkpoint that TensorFlow 1 wrote in 2020, the policy standup/ol of rex-gym 0.2.7
(github.com/nicrusso7/rex-gym, Apache-2.0, its source distribution on PyPI), the index as it is and the data with
zeros in the place of its large variables (LICENSE-rex-gym).
"""

import io
import sys
import tarfile
import tempfile
import types
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

HERE = Path(__file__).parent
CLASSES, SIDE = 10, 64


def pack(name, folder, prefix):
    """Put the files of a checkpoint into an archive, in a folder, by names in order and without times."""
    with tarfile.open(HERE / name, "w:gz", compresslevel=9) as archive:
        for path in sorted(Path(folder).iterdir()):
            member = tarfile.TarInfo(f"{prefix}/{path.name}")
            member.size = path.stat().st_size
            archive.addfile(member, io.BytesIO(path.read_bytes()))


def write_variables():
    """A variable of each kind, half of them on a second device, which a sharded Saver writes to a file of its own."""
    values = {
        "float": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8,
        "double": np.linspace(-1, 1, 5),
        "half": np.arange(3, dtype=np.float16),
        "int": np.arange(-2, 3, dtype=np.int32),
        "step": np.int64(3_200_000),
        "bool": np.array([True, False, True]),
        "empty": np.zeros((0, 4), np.float32),
    }
    with tf.Graph().as_default(), tempfile.TemporaryDirectory() as folder:
        for number, (name, value) in enumerate(values.items()):
            with tf.device(f"/cpu:{number % 2}"):
                tf.Variable(value, name=f"plain/{name}", use_resource=True)
        tf.Variable(tf.cast(values["float"], tf.bfloat16), name="plain/bfloat16", use_resource=True)
        tf.Variable(["a text", "another"], name="others/text")
        partitioner = tf.fixed_size_partitioner(2)
        tf.get_variable("others/sliced", (4, 2), initializer=tf.ones_initializer(), partitioner=partitioner)
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver(sharded=True).save(session, f"{folder}/model.ckpt", 7, write_meta_graph=False)
        pack("variables.tar.gz", folder, ".")


def masked(inputs, kernel_shape, compute, biases, scope):
    """A layer of contrib/model_pruning: `weights`, with a mask and a threshold, and perhaps biases."""
    with tf.variable_scope(scope):
        weights = tf.get_variable("weights", kernel_shape)
        mask = tf.get_variable("mask", kernel_shape, initializer=tf.ones_initializer(), trainable=False)
        tf.get_variable("threshold", [], initializer=tf.zeros_initializer(), trainable=False)
        outputs = compute(inputs, mask * weights)
        if biases is not None:
            outputs += tf.get_variable("biases", kernel_shape[-1:], initializer=biases)
    return outputs


def masked_conv2d(inputs, num_outputs, kernel_size, stride, padding, data_format, biases_initializer, scope, **_):
    def compute(images, kernel):
        return tf.nn.conv2d(images, kernel, [1, stride, stride, 1], padding, data_format=data_format)

    assert data_format == "NHWC"
    shape = [kernel_size, kernel_size, inputs.shape[-1].value, num_outputs]
    return masked(inputs, shape, compute, biases_initializer, scope)


def masked_fully_connected(inputs, num_outputs, biases_initializer, scope, **_):
    return masked(inputs, [inputs.shape[-1].value, num_outputs], tf.matmul, biases_initializer, scope)


def model_variable(name, custom_getter=None, collections=None, **options):
    return custom_getter(name, **options)


def contrib():
    """Stand in for tensorflow.contrib."""
    parts = {
        "layers": {"l2_regularizer": lambda scale: None},
        "framework.python.ops": {"variables": types.SimpleNamespace(model_variable=model_variable)},
        "model_pruning.python.layers": {
            "layers": types.SimpleNamespace(
                masked_conv2d=masked_conv2d, masked_fully_connected=masked_fully_connected
            )
        },
    }
    for path, content in parts.items():
        names = ["tensorflow", "contrib", *path.split(".")]
        for depth in range(2, len(names) + 1):
            name = ".".join(names[:depth])
            sys.modules.setdefault(name, types.ModuleType(name))
        vars(sys.modules[".".join(names)]).update(content)
    sys.modules["tensorflow.contrib"].layers = sys.modules["tensorflow.contrib.layers"]


def is_of_network(variable):
    return "/" in variable.op.name and not variable.op.name.endswith(("Momentum", "threshold"))


def value_of(name, shape, generator):
    """Return what a variable of the network holds."""
    kind = name.rpartition("/")[2]
    if kind == "mask":
        return (generator.random(shape) < 0.7).astype(np.float32)
    first, last = {"weights": (-3, 8), "gamma": (2, 6), "moving_variance": (4, 12)}.get(kind, (-4, 8))
    return (generator.integers(first, last + 1, shape) / 8).astype(np.float32)


def cut_tensorflow1(distribution):
    name = "rex_gym-0.2.7/rex_gym/policies/standup/ol/model.ckpt-2000000"
    with tarfile.open(distribution) as source, tempfile.TemporaryDirectory() as folder:
        paths = {}
        for suffix in ("index", "data-00000-of-00001"):
            paths[suffix] = Path(folder, f"model.ckpt-2000000.{suffix}")
            paths[suffix].write_bytes(source.extractfile(f"{name}.{suffix}").read())
        data = bytearray(paths["data-00000-of-00001"].read_bytes())
        data[144:402544] = bytes(402544 - 144)  # memory/Variable_1 to the policy's first biases
        data[405744:656968] = bytes(656968 - 405744)  # behind the policy's first weights, to before the value's
        data[660168:907768] = bytes(907768 - 660168)  # behind these, to before the value's last layer
        paths["data-00000-of-00001"].write_bytes(data)
        pack("tensorflow1.tar.gz", folder, "standup/ol")


def write_network(name, prune_first_layer):
    from rigl.imagenet_resnet import resnet_model

    generator = np.random.default_rng(0)
    with tf.Graph().as_default(), tempfile.TemporaryDirectory() as folder:
        tf.enable_resource_variables()
        build = resnet_model.resnet_v1_(
            50,
            CLASSES,
            pruning_method="threshold",
            width=1 / 64,
            prune_first_layer=prune_first_layer,
            data_format="channels_last",
        )
        pixels = (np.arange(SIDE * SIDE * 3) * 37 % 256 / 128 - 1).astype(np.float32).reshape(1, SIDE, SIDE, 3)
        images = tf.placeholder(tf.float32, pixels.shape)
        logits = build(images, is_training=False)
        tf.train.get_or_create_global_step()
        optimizer = tf.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True)
        optimizer.minimize(tf.reduce_sum(logits))  # makes its slots
        answers = tf.get_variable("answers", logits.shape, trainable=False)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            given = {
                tf.placeholder(tf.float32, one.shape): one for one in tf.global_variables() if is_of_network(one)
            }
            values = {place: value_of(one.op.name, one.shape.as_list(), generator) for place, one in given.items()}
            session.run([one.assign(place) for place, one in given.items()], values)
            answers.load(session.run(logits, {images: pixels}), session)
            turned = session.run(logits, {images: pixels[:, ::-1, ::-1]})
            difference = np.abs(turned - session.run(answers)).max() / np.ptp(turned)
            assert difference > 0.01, "the network does not see its image"
            tf.train.Saver().save(session, f"{folder}/model.ckpt", global_step=3200000, write_meta_graph=False)
        pack(name, folder, "s80")


if __name__ == "__main__":
    tf.disable_v2_behavior()
    contrib()
    sys.path.insert(0, sys.argv[1])
    cut_tensorflow1(sys.argv[2])
    write_variables()
    write_network("network.tar.gz", True)
    write_network("uniform.tar.gz", False)
