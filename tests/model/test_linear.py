"""Products whose kernels have float32 gradients, and what rematerialisation keeps of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.model.linear import add_bias, product
from spanbert_jax.planning.costs import analyse
from tests.small import small_config, small_program

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "equation, x, kernel",
    [
        ("BLD,DF->BLF", (3, 5, 8), (8, 6)),
        ("BLHK,HKD->BLD", (3, 5, 2, 4), (2, 4, 6)),
        ("BMD,VD->BMV", (3, 5, 8), (11, 8)),
        ("BLD,DTHK->BLTHK", (3, 5, 8), (8, 3, 2, 4)),
        ("BWP,PF->WBF", (3, 5, 8), (8, 6)),  # the summed axes change their order
        ("BDL,DF->BFL", (3, 8, 5), (8, 6)),  # the summed axes do not all lead
        ("D,DF->F", (8,), (8, 6)),
    ],
)
def test_product_and_gradients_are_einsums(equation, x, kernel):
    x, kernel = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in (x, kernel))

    def of(function):
        return jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), argnums=(0, 1))(x, kernel)

    mine, plain = (
        of(lambda x, kernel: product(equation, x, kernel, jnp.float32)),
        of(lambda x, kernel: jnp.einsum(equation, x, kernel)),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mine, plain)


def test_gradients_of_bfloat16_products_are_summed_in_float32():
    """A sum of 4,096 equal terms: in bfloat16 it stops growing at 256 of them, or is rounded to 8 bits at the end."""
    x, kernel, bias = jnp.ones((4096, 1), jnp.bfloat16), jnp.full((1, 1), 0.5), jnp.zeros(1)
    scale = 1 + 2.0**-9  # no bfloat16; the gradient of the loss is, being its rounding
    gradient = jax.grad(
        lambda kernel, bias: (
            scale * jnp.sum(add_bias(product("BI,IO->BO", x, kernel, jnp.bfloat16), bias)[:4093].astype(jnp.float32))
        ),
        argnums=(0, 1),
    )(kernel, bias)
    for leaf in gradient:
        assert leaf.dtype == jnp.float32 and leaf.item() == 4093  # bfloat16 would make it 4096


def test_what_is_computed_anew():
    """FLOPs of the compiled step by remat policy: "dots" keeps every product with a kernel, "full" none."""

    def flops(remat):
        config = small_config(model__remat=remat, model__layers=4)
        program = small_program(config, 1)
        compiled = program.train_step.lower(program.state, program.batch_shapes(config.batch_size)[0]).compile()
        return analyse(compiled.as_text(), dict(program.mesh.shape)).flops, program

    (none, program), (dots, _), (full, _) = (flops(remat) for remat in ("none", "dots", "full"))
    assert none == program.flops_per_step
    rows, length, width, wide, layers = 16, 64, 32, 64, 4
    attention = 4 * length * length * width * rows * layers
    products = 2 * length * (4 * width * width + 2 * width * wide) * rows * layers
    assert dots == pytest.approx(none + attention, rel=0.01) or dots == pytest.approx(
        none + attention / 2, rel=0.01
    )  # mixing need not be done again
    assert full == pytest.approx(none + attention + products, rel=0.02)


@pytest.mark.parametrize(
    "changes", [{}, dict(objectives__nsp_weight=1.0), dict(model__attention="splash", seq_len=128)]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float32_products_are_exact_on_every_platform(dtype, changes):
    """No product, forward or backward, is left to a platform's default, which for a TPU is one bfloat16 pass."""
    pair = dict(data__blocks="pair") if "objectives__nsp_weight" in changes else {}
    config = small_config(**{"model__dtype": dtype, "model__attention_dropout": 0.0, "batch_size": 2} | pair | changes)
    program = small_program(config, 1)
    [batch] = program.batch_shapes(config.batch_size)
    for lowered in (
        program.train_step.lower(program.state, batch),
        program.eval_step.lower(program.state.params, batch),
    ):
        products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
        exact = ["precision = [HIGHEST, HIGHEST]" in line for line in products]
        assert len(products) >= 8 and all(wanted == (dtype == "float32") for wanted in exact), products
