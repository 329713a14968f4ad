"""Networks over graphs: messages along edges, summed at nodes.

Kipf and Welling, "Semi-supervised classification with graph convolutional networks", arXiv 1609.02907; Veličković et
al., "Graph attention networks", arXiv 1710.10903; Battaglia et al., "Relational inductive biases", arXiv 1806.01261.
Edges are pairs of indices; the graphs are of the size of ogbn-arxiv (169,343 nodes, 1,166,243 edges) and of a mesh.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from memplan.workloads._weights import Weights, classified, floats, infer, ints, squared, train
from memplan.workloads.registry import Built, workload

GCN = "Kipf and Welling, arXiv 1609.02907"
GAT = "Veličković et al., arXiv 1710.10903"


def gcn(tiny: bool, p: Weights, x: jax.Array, edges: jax.Array) -> jax.Array:
    """Nodes [N, C] and edges [2, E] int32, from and to, to float32 logits [N, classes]."""
    width, classes, layers = (8, 3, 2) if tiny else (256, 40, 3)
    nodes = x.shape[0]
    degree = jax.ops.segment_sum(jnp.ones(edges.shape[1]), edges[1], nodes) + 1
    scale = jax.lax.rsqrt(degree).astype(x.dtype)[:, None]
    for layer in range(layers):
        y = p.dense(f"layer{layer}", x, width if layer + 1 < layers else classes) * scale
        x = (jax.ops.segment_sum(y[edges[0]], edges[1], nodes) + y) * scale
        x = jax.nn.relu(x) if layer + 1 < layers else x
    return x.astype(jnp.float32)


def _gcn_inputs(tiny: bool) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    nodes, edges, width = (6, 10, 4) if tiny else (169_343, 1_166_243, 128)
    return floats(nodes, width, dtype=jnp.bfloat16), ints(2, edges)


@workload("graph convolutions, 3 layers of 256 on the graph of ogbn-arxiv, bfloat16", family="graph", source=GCN)
def gcn_infer(tiny: bool = False) -> Built:
    return infer(partial(gcn, tiny), *_gcn_inputs(tiny))


@workload(
    "graph convolutions, 3 layers of 256, one Adam step on the graph of ogbn-arxiv, mixed precision",
    family="graph",
    source=GCN,
    kind="training",
    donate_argnums=(0, 1),
)
def gcn_train(tiny: bool = False) -> Built:
    x, edges = _gcn_inputs(tiny)

    def loss(p: Weights, x: jax.Array, edges: jax.Array, labels: jax.Array) -> jax.Array:
        return classified(lambda p, x: gcn(tiny, p, x, edges))(p, x, labels)

    return train(loss, x, edges, ints(x.shape[0]))


def gat(tiny: bool, p: Weights, x: jax.Array, edges: jax.Array) -> jax.Array:
    """Nodes [N, C] and edges [2, E] to [N, heads × width]: softmax over the edges that reach a node, for each head."""
    heads, width, layers = (2, 4, 1) if tiny else (8, 32, 2)
    source, target = edges
    for layer in range(layers):
        part = p / f"layer{layer}"
        y = part.dense("project", x, heads * width).reshape(x.shape[0], heads, width)
        sent, received = ((y * part(name, heads, width).astype(y.dtype)).sum(-1) for name in ("sent", "received"))
        logits = jax.nn.leaky_relu(sent[source] + received[target], 0.2).astype(jnp.float32)
        largest = jax.ops.segment_max(logits, target, x.shape[0])
        weights = jnp.exp(logits - largest[target])
        total = jax.ops.segment_sum(weights, target, x.shape[0])
        shares = (weights / (total[target] + 1e-9)).astype(y.dtype)
        x = jax.nn.elu(jax.ops.segment_sum(shares[..., None] * y[source], target, x.shape[0])).reshape(x.shape[0], -1)
    return x


@workload(
    "graph attention, 2 layers of 8 heads on 20,000 nodes and 200,000 edges, bfloat16", family="graph", source=GAT
)
def gat_infer(tiny: bool = False) -> Built:
    nodes, edges, width = (6, 10, 4) if tiny else (20_000, 200_000, 256)
    return infer(partial(gat, tiny), floats(nodes, width, dtype=jnp.bfloat16), ints(2, edges))


def graph_network(tiny: bool, p: Weights, nodes: jax.Array, edges: jax.Array, pairs: jax.Array) -> jax.Array:
    """Nodes [N, C], edges [E, C] and their ends [2, E] to accelerations [N, 3]: 10 rounds of messages unless `tiny`."""
    rounds, width = (2, 8) if tiny else (10, 128)
    x, e = p.mlp("nodes", nodes, width, width), p.mlp("edges", edges, width, width)

    def message(p: Weights, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, e = state
        e = e + p.mlp("edge", jnp.concatenate([e, x[pairs[0]], x[pairs[1]]], axis=-1), width, width)
        received = jax.ops.segment_sum(e, pairs[1], x.shape[0])
        return x + p.mlp("node", jnp.concatenate([x, received], axis=-1), width, width), e

    x, _ = p.layers("round", message, (x, e), rounds)
    return p.mlp("out", x, width, 3).astype(jnp.float32)


@workload(
    "graph network that learns to simulate, 10 rounds of 128, one SGD step on 5,000 particles, mixed precision",
    family="graph",
    source="Sanchez-Gonzalez et al., arXiv 2002.09405",
    kind="training",
    donate_argnums=(0,),
)
def graph_network_train(tiny: bool = False) -> Built:
    nodes, edges = (6, 10) if tiny else (5_000, 60_000)
    inputs = floats(nodes, 30, dtype=jnp.bfloat16), floats(edges, 4, dtype=jnp.bfloat16), ints(2, edges)
    return train(squared(partial(graph_network, tiny)), *inputs, floats(nodes, 3), optimizer="sgd")
