"""Networks of dm-haiku (Hennigan et al., 2020): the library's own ResNet, MobileNet, quantizer, LSTM and attention."""

from __future__ import annotations

from typing import Any

import jax

from memplan.workloads._weights import floats, ints
from memplan.workloads._zoo import KEY, optax_step
from memplan.workloads.registry import Built, workload

SOURCE = "dm-haiku"
NEEDS = ("haiku", "optax")


def _resnet(tiny: bool) -> Any:
    import haiku as hk

    def forward(images: jax.Array, is_training: bool) -> jax.Array:
        if tiny:
            net: Any = hk.nets.ResNet((1, 1, 1, 1), 10, channels_per_group=(8, 8, 16, 16))
        else:
            net = hk.nets.ResNet50(1000)
        return net(images, is_training)

    return hk.transform_with_state(forward)


def _images(tiny: bool, batch: int) -> jax.ShapeDtypeStruct:
    size = 32 if tiny else 224
    return floats(batch, size, size, 3)


def _inference(net: Any, images: jax.ShapeDtypeStruct) -> Built:
    """Returns a network `forward(images, is_training)` after training, which alone makes the averages of its norms."""
    params, state = jax.eval_shape(lambda key, x: net.init(key, x, True), KEY, images)

    def fun(params: Any, state: Any, images: jax.Array) -> jax.Array:
        logits: jax.Array = net.apply(params, state, None, images, False)[0]
        return logits

    return fun, (params, state, images)


@workload(
    "hk.nets.ResNet50, 224 × 224 images, float32", family="convnet", source=f"{SOURCE}, arXiv 1512.03385", needs=NEEDS
)
def haiku_resnet50_infer(tiny: bool = False, batch: int = 8) -> Built:
    return _inference(_resnet(tiny), _images(tiny, batch))


@workload(
    "hk.nets.ResNet50, one step of optax.sgd with Nesterov momentum, 32 images, float32",
    family="convnet",
    source=f"{SOURCE} and optax, arXiv 1512.03385",
    kind="training",
    donate_argnums=(0, 1, 2),
    needs=NEEDS,
)
def haiku_resnet50_train(tiny: bool = False, batch: int = 32) -> Built:
    import optax

    net, images = _resnet(tiny), _images(tiny, batch)
    params, state = jax.eval_shape(lambda key, x: net.init(key, x, True), KEY, images)
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)

    def loss(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        logits, state = net.apply(params, state, None, images, True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), state

    def fun(params: Any, velocity: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(params, state, images, labels)
        updates, velocity = optimizer.update(gradients, velocity, params)
        return optax.apply_updates(params, updates), velocity, state, value

    velocity = jax.eval_shape(optimizer.init, params)
    return fun, (params, velocity, state, images, ints(batch))


@workload(
    "hk.nets.MobileNetV1, 224 × 224 images, float32",
    family="convnet",
    source=f"{SOURCE}, arXiv 1704.04861",
    needs=NEEDS,
)
def haiku_mobilenet_infer(tiny: bool = False, batch: int = 8) -> Built:
    import haiku as hk

    def forward(images: jax.Array, is_training: bool) -> jax.Array:
        sizes: dict[str, Any] = {"channels": (8, 16, 16), "strides": (1, 2, 1), "num_classes": 10} if tiny else {}
        return hk.nets.MobileNetV1(**sizes)(images, is_training)

    return _inference(hk.transform_with_state(forward), _images(tiny, batch))


@workload(
    "VQ-VAE with hk.nets.VectorQuantizer, one step of optax.adam, 64 × 64 images, float32",
    family="representation",
    source=f"{SOURCE} and optax, arXiv 1711.00937",
    kind="training",
    donate_argnums=(0, 1),
    needs=NEEDS,
)
def haiku_vqvae_train(tiny: bool = False, batch: int = 64) -> Built:
    import haiku as hk
    import optax

    channels, codes, size = (8, 16, 16) if tiny else (128, 512, 64)

    def loss(images: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(hk.Conv2D(channels, 4, stride=2)(images))
        hidden = hk.Conv2D(channels, 4, stride=2)(hidden)
        quantized = hk.nets.VectorQuantizer(channels, codes, commitment_cost=0.25)(hidden, is_training=True)
        hidden = jax.nn.relu(hk.Conv2DTranspose(channels, 4, stride=2)(quantized["quantize"]))
        decoded = hk.Conv2DTranspose(3, 4, stride=2)(hidden)
        return ((decoded - images) ** 2).mean() + quantized["loss"]

    net, images = hk.without_apply_rng(hk.transform(loss)), floats(batch, size, size, 3)
    return optax_step(net.apply, jax.eval_shape(net.init, KEY, images), optax.adam(3e-4), images)


@workload(
    "three hk.LSTM with skip connections, 128 steps of 64 sequences, float32",
    family="recurrent",
    source=SOURCE,
    needs=NEEDS,
)
def haiku_lstm_infer(tiny: bool = False, batch: int = 64) -> Built:
    import haiku as hk

    width, length = (8, 6) if tiny else (1024, 128)

    def forward(sequence: jax.Array) -> jax.Array:
        core = hk.deep_rnn_with_skip_connections([hk.LSTM(width) for _ in range(3)])
        outputs, _ = hk.dynamic_unroll(core, sequence, core.initial_state(sequence.shape[1]))
        last: jax.Array = hk.Linear(width)(outputs[-1])
        return last

    net, sequence = hk.without_apply_rng(hk.transform(forward)), floats(length, batch, width)
    return lambda params, x: net.apply(params, x), (jax.eval_shape(net.init, KEY, sequence), sequence)


@workload(
    "encoder of six blocks with hk.MultiHeadAttention, one step of optax.lamb, 16 × 256 tokens, float32",
    family="encoder",
    source=f"{SOURCE} and optax, arXiv 1706.03762",
    kind="training",
    donate_argnums=(0, 1),
    needs=NEEDS,
)
def haiku_encoder_train(tiny: bool = False, batch: int = 16) -> Built:
    import haiku as hk
    import optax

    layers, width, heads, length, vocabulary = (1, 8, 2, 6, 11) if tiny else (6, 512, 8, 256, 8192)

    def loss(tokens: jax.Array) -> jax.Array:
        initializer = hk.initializers.VarianceScaling()
        x = hk.Embed(vocabulary, width)(tokens)
        for _ in range(layers):
            y = hk.LayerNorm(-1, True, True)(x)
            x = x + hk.MultiHeadAttention(heads, width // heads, w_init=initializer)(y, y, y)
            x = x + hk.nets.MLP((4 * width, width))(hk.LayerNorm(-1, True, True)(x))
        logits = hk.Linear(vocabulary)(hk.LayerNorm(-1, True, True)(x))
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()

    net, tokens = hk.without_apply_rng(hk.transform(loss)), ints(batch, length)
    return optax_step(net.apply, jax.eval_shape(net.init, KEY, tokens), optax.lamb(1e-3), tokens)
