"""Reports: the table, the JSON object and the page say what the estimate holds, nothing more."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from snapjax import cost
from snapjax.cost import Counts, Cut, Op, Schedule, Transfer
from snapjax.cost.report.html import bars
from snapjax.cost.report.text import modules_to_depth, si

HOSTILE = "Net/<script>alert('x')</script>&\"\n\x1b[31m"


def counts():
    op = lambda path, kind, count, sites=(): Op(
        path, "dot_general", kind, count, "float32", 32, sites, 4e4, 8e3, 4e4, 8e3
    )
    return Counts(
        devices=4,
        mesh={"data": 1, "stage": 4},
        ops=(
            op("Net/block/attention/query", "mac", 3e6),
            op("Net/block/attention/key", "mac", 2e6),
            op("Net/block/mlp", "ac", 4e6, ("cut",)),
            op(HOSTILE, "transcendental", 1e3),
            op("", "add", 10.0),
        ),
        transfers=(
            Transfer("Net/send", "ppermute", ("stage",), 8192, (8192.0,), 7, ((0, 1), (1, 2)),
                     "packed", (1,), 8192, ("cut",)),
            Transfer(HOSTILE, "psum", ("stage",), 4, (6.0,), 1, None, "float32", (6,), 1),
        ),
        unpriced=(cost.Unpriced("fft", HOSTILE, 12, 1),),
        parameters=136010,
        rates={"cut": 0.25},
    )  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return cost.estimate(counts(), "snap-mesh", schedule=Schedule(4, 4), cut=Cut(16384, 4))


def test_table(found):
    text = found.table()
    assert "4 devices (4 stage), counted from the jaxpr, 136,010 parameters" in text
    assert re.search(r"multiply-accumulates +36,000,000 \(36 M\)", text)  # 4 x (3 + 2 + 4) M
    assert re.search(r"accumulates, for spikes +4,000,000", text)  # 4 x 4 M x 0.25
    # 4 devices x (5 M x 4.6 + 1 M x 0.9) pJ
    assert re.search(r"MACs and ACs alone +95\.6 uJ", text)
    lines = text.splitlines()
    attention = next(line for line in lines if line.startswith("Net/block/attention"))
    assert attention.split()[1:3] == ["20", "M"]
    assert any(line.startswith("(top)") for line in lines)
    # ppermute: 2 pairs x 7 times x 8192 bytes
    link = next(line for line in lines if line.startswith("ppermute over stage"))
    assert "8,192 B" in link
    assert "114,688 B" in link
    assert "fft" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)  # nothing that a terminal would obey


def test_table_has_no_ragged_columns(found):
    block = next(part for part in found.table().split("\n\n") if part.startswith("module"))
    header, rule, *rows = block.splitlines()
    edges = [match.end() for match in re.finditer(r"-+", rule)]
    assert len(edges) == 7
    assert header.endswith("time a device")
    for row in rows:
        for edge in edges[:-1]:
            assert row[edge : edge + 2].strip() == ""  # a gutter between columns


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_depth_loses_nothing(found, depth):
    rows = modules_to_depth(found, depth)
    assert sum(row.picojoules.value for row in rows) == pytest.approx(
        sum(row.picojoules.value for row in found.modules)
    )
    assert sum(row.seconds.high for row in rows) == pytest.approx(
        sum(row.seconds.high for row in found.modules)
    )
    names = [row.path for row in rows]
    assert len(names) == len(set(names)) == {1: 2, 2: 3, 3: 4, 9: 5}[depth]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "J", "0 J"), (999.4, "B", "999 B"), (999.6, "B", "1 kB"), (1e9, "", "1 G"),
        (1.5e-12, "J", "1.5 pJ"), (0.25, "s", "250 ms"), (-2e-3, "s", "-2 ms"),
        (1e20, "", "1e+05 P"), (1e-15, "s", "0.001 ps"),
    ],
)  # fmt: skip
def test_numbers_with_prefixes(value, unit, text):
    assert si(value, unit) == text


def test_json(found):
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"macs", "acs", "parameters", "links", "energy_pj", "latency_s"} <= set(record)
    assert (record["macs"], record["acs"]) == (36_000_000, 4_000_000)
    parts = {name: part["value"] for name, part in record["energy_parts_pj"].items()}
    assert sum(parts.values()) == pytest.approx(record["energy_pj"])
    low, high = record["energy_range_pj"]
    assert low < record["energy_pj"] < high
    times = record["latency_parts_s"]
    assert sum(times.values()) - 2 * times["hidden"] == pytest.approx(record["latency_s"])
    assert record["links"][0]["bytes"] == 2 * 7 * 8192
    assert record["links"][0]["bytes_of_busiest_device"] == {"stage": 7 * 8192}
    assert record["schedule"]["bubble"] == pytest.approx(3 / 7)
    assert record["traffic"][0]["break_even"]["dense_bits"] == 3
    assert sum(record["constants"].values()) == 42
    assert record["unpriced"][0]["elements"] == 12


# The page


class Strict(HTMLParser):
    """Collects elements and raises for tags that do not close in order."""

    VOID = ("meta",)

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.text = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_self_contained_and_escaped(found):
    page = found.html("Cost of <b>mine</b>")
    parsed = Strict(page)
    tags = {tag for tag, _ in parsed.seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "b", "use", "image"}
    for _, attributes in parsed.seen:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "href", "xlink:href", "srcset")
            assert "url(" not in (value or "")
    assert not re.search(r"https?:|@import|url\(", page)
    text = "".join(parsed.text)
    assert "Cost of <b>mine</b>" in text
    assert "<script>alert('x')</script>" in text  # as text, in the table
    assert [tag for tag, _ in parsed.seen].count("svg") == 4


def charts(page):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_bars_are_as_long_as_their_numbers(found):
    energy, waterfall, links, encodings = charts(found.html())
    rectangles = [(float(r.get("x")), float(r.get("width"))) for r in energy.findall("rect")]
    parts = [part.value for part in found.energy_parts.values()]
    largest = max(range(4), key=parts.__getitem__)
    for (_, width), value in zip(rectangles, parts, strict=True):
        expected = rectangles[largest][1] * value / parts[largest]
        assert width == pytest.approx(max(expected, 1.0), abs=0.11)
    # Each part of the latency starts where the one before ended; the last bar is the sum.
    steps = [(float(r.get("x")), float(r.get("width"))) for r in waterfall.findall("rect")]
    for (x, width), (after, _) in itertools.pairwise(steps[:-1]):
        assert after == pytest.approx(x + width, abs=1.1)
    assert steps[-1][0] == steps[0][0]
    assert steps[-1][1] == pytest.approx(520, abs=0.1)
    widths = [float(r.get("width")) for r in links.findall("rect")]
    assert widths == [520.0, 1.0]  # 114,688 bytes and 24
    assert len(encodings.findall("rect")) == 6


def test_range_marks_reach_from_low_to_high():
    (svg,) = charts(bars([("a", 0.0, 2.0, "2", (1.0, 4.0))], 4.0))
    path = svg.find("path").get("d")
    low, high = map(float, re.match(r"M([\d.]+) [\d.]+H([\d.]+)", path).groups())
    assert (low, high) == (250 + 520 / 4, 250 + 520)


def test_a_chart_of_nothing():
    assert bars([], 1.0) == ""
    nothing = cost.estimate(Counts(), "snap-mesh")
    Strict(nothing.html())
    assert nothing.energy.value == 0
    assert "energy" in nothing.table()


# Models of a user's own: neither from the zoo, and nothing of snapjax but its cost model


def test_a_plain_mlp_under_shard_map():
    """Two layers, the hidden axis over 4 devices: columns, then rows and a psum."""
    mesh = AbstractMesh((4,), ("model",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec

    def mlp(x, up, down):
        return jax.lax.psum(jax.nn.relu(x @ up) @ down, "model")

    split = jax.shard_map(
        mlp,
        mesh=mesh,
        in_specs=(spec(), spec(None, "model"), spec("model", None)),
        out_specs=spec(),
    )
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    found = cost.estimate(
        cost.trace(split, shape(8, 64), shape(64, 256), shape(256, 64)), "tpu-v5e"
    )
    # 2 matmuls of 8 x 64 x 256, wherever they are cut.
    assert found.macs == 2 * 8 * 64 * 256
    # A ring of 4 sends 2 x 3/4 of the 8 x 64 floats from each device.
    (link,) = found.links
    assert link.bytes == 4 * 2 * 3 / 4 * 8 * 64 * 4
    assert link.bytes_per_axis["model"] == 2 * 3 / 4 * 8 * 64 * 4
    # 6 messages of 512 bytes: (512 + 30000) bytes at 0.9 x 45 GB/s each, and 3 us: an axis of 4 is
    # no ring, and what closes the ring of rounds comes back over 3 links.
    assert link.seconds.value == pytest.approx(6 * (3e-6 + (512 + 3e4) / (0.9 * 45e9)))
    # A quarter of the bytes goes back over 3 links: 3/4 + 3/4 links a byte.
    assert link.crossed == 1.5 * link.bytes
    assert link.energy.value == pytest.approx(1.5 * link.bytes * 8 * 5.5)
    assert "psum over model" in found.table()


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="first")(x))
        x = nn.relu(nn.Conv(16, (3, 3), strides=2, name="second")(x))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def test_a_linen_cnn():
    model = Cnn()
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    counts = cost.trace(model.apply, params, images, parameters=params)
    found = cost.estimate(counts, "h100-nvlink")
    # Same padding: 2 x 28 x 28 x 8 x 9 + 2 x 14 x 14 x 16 x 9 x 8 + 2 x 16 x 10.
    each = {"first": 112896, "second": 451584, "head": 320}
    assert found.macs == sum(each.values())
    # Kernels and biases: 9 x 8 + 8, 9 x 8 x 16 + 16, 16 x 10 + 10.
    assert found.counts.parameters == 80 + 1168 + 170
    by_name = {module.path.split("/")[-1]: module.macs for module in found.modules}
    assert {name: by_name[name] for name in each} == each
    assert found.links == ()
    assert found.energy_parts["compute"].value >= 1.8 * sum(each.values())
    Strict(found.html("CNN"))
