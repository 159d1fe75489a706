"""Makes mctx_search.json: what mctx answers on small tabular models. Run once, when the definition of a case changes:

pip install mctx && python tests/golden/make_mctx_golden.py

The models are arrays of states and actions with random transitions, rewards, values and policies; they are stored
beside the answers, so the tests need neither mctx nor jax. pUCT normalises Q by the running range of the whole tree
(MuZero, appendix B), which mctx does not offer: `by_running_range` replays the finished simulations to obtain it.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from mctx._src import qtransforms

BATCH = 8
MODELS = {"small": (40, 4), "atari": (24, 18)}
"""States and actions."""

PUCT = {"kind": "puct", "model": "small", "simulations": 50, "discount": 0.97, "unvisited": "parent"}
GUMBEL = {"kind": "gumbel", "model": "atari", "simulations": 50, "discount": 0.97, "c_scale": 0.1, "considered": 16}
CASES = {
    "puct": PUCT,
    "puct zero": PUCT | {"unvisited": "zero"},
    "puct completed": PUCT | {"unvisited": "completed"},
    "puct known bounds": PUCT | {"unvisited": "zero", "bounds": [-4.0, 4.0]},
    "puct two players": PUCT | {"discount": -1.0},
    "puct many actions, some illegal": PUCT | {"model": "atari", "illegal": 0.6, "simulations": 100},
    "gumbel": GUMBEL,
    "gumbel without noise": GUMBEL | {"noise": False},
    "gumbel few simulations": GUMBEL | {"simulations": 2},
    "gumbel boards": GUMBEL | {"discount": -1.0, "c_scale": 1.0, "bounds": [-4.0, 4.0]},
    "gumbel few actions": GUMBEL | {"model": "small", "simulations": 16},
    "gumbel some illegal": GUMBEL | {"illegal": 0.6, "simulations": 33, "considered": 5},
    "gumbel every legal action visited": GUMBEL | {"illegal": 0.85, "simulations": 6},
    "gumbel long": GUMBEL | {"model": "small", "simulations": 200, "c_scale": 1.0},
}


def tabular_model(rng, states, actions):
    return {
        "next": rng.integers(states, size=(states, actions)),
        "reward": rng.normal(size=(states, actions)).round(4),
        "value": rng.normal(size=states).round(4),
        "logits": rng.normal(scale=1.5, size=(states, actions)).round(4),
    }


def replayed_range(tree):
    """Lowest and highest Q ever backed up, and the root's value, of one unbatched tree."""
    nodes = tree.parents.shape[0]

    def climb(state):
        index, value, visits, sums, low, high = state
        parent, action = tree.parents[index], tree.action_from_parent[index]
        reward, discount = tree.children_rewards[parent, action], tree.children_discounts[parent, action]
        q = reward + discount * sums[index] / visits[index]
        value = reward + discount * value
        visits, sums = visits.at[parent].add(1), sums.at[parent].add(value)
        return parent, value, visits, sums, jnp.minimum(low, q), jnp.maximum(high, q)

    def replay(leaf, state):
        visits, sums, low, high = state
        value = tree.raw_values[leaf]
        start = jnp.where(tree.parents[leaf] >= 0, leaf, 0)
        visits = visits.at[leaf].set(1)
        sums = sums.at[leaf].set(value)
        state = (start, value, visits, sums, low, high)
        return jax.lax.while_loop(lambda s: s[0] != 0, climb, state)[2:]

    root_value = tree.raw_values[0]
    visits, sums = jnp.zeros(nodes).at[0].set(1), jnp.zeros(nodes).at[0].set(root_value)
    return jax.lax.fori_loop(1, nodes, replay, (visits, sums, root_value, root_value))[2:]


def mixed_value(tree, index):
    return qtransforms._compute_mixed_value(
        tree.raw_values[index],
        qvalues=tree.qvalues(index),
        visit_counts=tree.children_visits[index],
        prior_probs=jax.nn.softmax(tree.children_prior_logits[index]),
    )


def by_running_range(tree, index, *, unvisited):
    low, high = replayed_range(tree)
    width = jnp.maximum(high - low, 1e-8)
    filler = {"zero": low, "parent": tree.node_values[index], "completed": mixed_value(tree, index)}[unvisited]
    score = jnp.clip((filler - low) / width, 0.0, 1.0)
    return jnp.where(tree.children_visits[index] > 0, (tree.qvalues(index) - low) / width, score)


def qtransform(case):
    bounds = case.get("bounds")
    if case["kind"] == "puct":
        if bounds:
            return functools.partial(mctx.qtransform_by_min_max, min_value=bounds[0], max_value=bounds[1])
        return functools.partial(by_running_range, unvisited=case["unvisited"])
    # Without rescaling mctx leaves q as it is: dividing by the width of the bounds is the same up to a constant.
    scale = case["c_scale"] / (bounds[1] - bounds[0] if bounds else 1.0)
    return functools.partial(
        mctx.qtransform_completed_by_mix_value, value_scale=scale, maxvisit_init=50.0, rescale_values=not bounds
    )


def solve(case, model, seed):
    rng = np.random.default_rng(seed)
    states, actions = model["logits"].shape
    roots = rng.choice(states, size=BATCH, replace=False)
    illegal = rng.random((BATCH, actions)) < case.get("illegal", 0.0)
    illegal[:, 0] &= ~illegal.all(axis=1)
    arrays = {name: jnp.asarray(array) for name, array in model.items()}

    def recurrent_fn(_params, _key, action, state):
        following = arrays["next"][state, action]
        discount = jnp.full(state.shape, case["discount"])
        output = mctx.RecurrentFnOutput(
            reward=arrays["reward"][state, action],
            discount=discount,
            prior_logits=arrays["logits"][following],
            value=arrays["value"][following],
        )
        return output, following

    root = mctx.RootFnOutput(
        prior_logits=arrays["logits"][roots], value=arrays["value"][roots], embedding=jnp.asarray(roots)
    )
    common = {
        "params": (),
        "rng_key": jax.random.PRNGKey(seed),
        "root": root,
        "recurrent_fn": recurrent_fn,
        "num_simulations": case["simulations"],
        "invalid_actions": jnp.asarray(illegal),
        "qtransform": qtransform(case),
    }
    if case["kind"] == "puct":
        output = mctx.muzero_policy(**common, dirichlet_fraction=0.0, temperature=0.0)
    else:
        gumbel_scale = 1.0 if case.get("noise", True) else 0.0
        output = mctx.gumbel_muzero_policy(
            **common, max_num_considered_actions=case["considered"], gumbel_scale=gumbel_scale
        )
    tree = output.search_tree
    answer = {
        "roots": roots,
        "legal": ~illegal,
        "visits": tree.summary().visit_counts.astype(int),
        "policy": output.action_weights,
        "mean_value": tree.summary().value,
        "mixed_value": jax.vmap(mixed_value, in_axes=(0, None))(tree, 0),
    }
    if case["kind"] == "gumbel":
        answer |= {"gumbel": tree.extra_data.root_gumbel, "action": output.action}
    return {name: np.asarray(array).tolist() for name, array in answer.items()}


def rounded(value):
    """Floats to 6 digits: the tests compare visit counts exactly, the rest to 1e-4."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def main():
    rng = np.random.default_rng(20)
    models = {name: tabular_model(rng, *shape) for name, shape in MODELS.items()}
    cases = []
    for seed, (name, case) in enumerate(CASES.items()):
        answer = solve(case, models[case["model"]], seed)
        cases.append({"name": name, **case, **{key: rounded(value) for key, value in answer.items()}})
    stored = {name: {key: array.tolist() for key, array in model.items()} for name, model in models.items()}
    lines = ",\n".join(json.dumps(case) for case in cases)
    path = Path(__file__).with_name("mctx_search.json")
    path.write_text(f'{{"mctx": "{mctx.__version__}",\n"models": {json.dumps(stored)},\n"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
