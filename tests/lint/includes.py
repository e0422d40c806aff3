"""Holds the architecture: which folder may include which. The table below is the map's section 1 in code.

    tensor <- graph <- {ops, passes, onnx} <- plan <- engine.h <- {server, cli}
"""

import pathlib
import re

from source_tree import ROOT, Violation, cpp_files, read_text

# Plain values and macros that both sides of engine.h speak, the configuration too. Not a way around engine.h: a header
# belongs here when it includes nothing of the engine but tensors and has no state.
VOCABULARY = [
    "engine/tensor/output_agreement.h",
    "engine/tensor/file_stamp.h",
    "engine/tensor/pending_file.h",
    "engine/tensor/bytes_elements.h",
    "engine/tensor/format.h",
    "engine/tensor/npz_writer.h",
    "engine/tensor/status.h",
    "engine/tensor/utf8.h",
    "engine/tensor/wire_mapping.h",
    "engine/tensor/wire_tensor.h",
    "engine/graph/precision.h",
]

# Folder -> what its files may include of ours: folders (their files, not their subfolders) and single headers.
# The entry with the longest matching path holds. A folder may always include itself. `*`: everything (tests).
OURS = {
    "proto": [],
    "config": VOCABULARY,
    "engine/tensor": [],
    "engine/graph": ["engine/tensor"],
    "engine/onnx": ["engine/tensor", "engine/graph"],
    "engine/onednn": ["engine/tensor", "engine/ops/target.h"],
    "engine/ops": ["engine/tensor", "engine/graph", "engine/onednn"],
    "engine/passes": ["engine/tensor", "engine/graph", "engine/ops"],
    "engine/plan": [
        "engine/tensor",
        "engine/graph",
        "engine/ops",
        "engine/onnx",
        "engine/passes",
        "engine/onednn",
        "engine/engine.h",  # declares the Model and Session that plan implements
    ],
    "engine/quantize": [
        "engine/tensor",
        "engine/graph",
        "engine/ops",
        "engine/onnx",
        "engine/passes",
        "engine/plan",
        "engine/engine.h",  # calibration runs models the way everybody does
    ],
    "engine/train": [
        "engine/tensor",
        "engine/graph",
        "engine/ops",
        "engine/onnx",
        "engine/passes",
        "engine/plan",
        "engine/onednn",
        "engine/quantize",
        "engine/engine.h",
    ],
    "engine": [
        "engine/tensor",
        "engine/graph",
        "engine/ops",
        "engine/onnx",
        "engine/passes",
        "engine/plan",
        "engine/quantize",
        "engine/train",
    ],
    "server/metrics": ["engine/engine.h", *VOCABULARY, "config"],
    "server/logging": [*VOCABULARY],
    "server/scheduling": ["engine/engine.h", *VOCABULARY, "config", "server/metrics"],
    "server/routing": [*VOCABULARY, "config"],
    "server/tracing": [*VOCABULARY, "config", "server/logging", "server/scheduling"],
    "server/sequence": [
        "engine/engine.h",
        *VOCABULARY,
        "config",
        "server/metrics",
        "server/routing",
        "server/scheduling",
    ],
    "server/picture": ["engine/engine.h", *VOCABULARY, "config"],
    "server/capture": [
        "engine/engine.h",
        *VOCABULARY,
        "config",
        "server/logging",
        "server/metrics",
    ],
    "server/repository": [
        "engine/engine.h",
        *VOCABULARY,
        "config",
        "server/capture",
        "server/logging",
        "server/metrics",
        "server/picture",
        "server/scheduling",
        "server/sequence",
        "server/routing",
    ],
    "server/shadow": [
        "engine/engine.h",
        *VOCABULARY,
        "server/capture",
        "server/logging",
        "server/metrics",
        "server/repository",
        "server/routing",
        "server/scheduling",
    ],
    "server/pipeline": [
        "engine/engine.h",
        *VOCABULARY,
        "server/repository",
        "server/scheduling",
        "server/routing",
        "server/shadow",
        "server/tracing",
    ],
    "server/tls": [*VOCABULARY],
    "server/rpc": [
        "engine/engine.h",
        *VOCABULARY,
        "config",
        "server/capture",
        "server/logging",
        "proto",
        "server/metrics",
        "server/pipeline",
        "server/scheduling",
        "server/sequence",
        "server/repository",
        "server/routing",
        "server/shadow",
        "server/tls",
        "server/tracing",
        "server",
    ],
    "server/http": [
        "engine/engine.h",
        *VOCABULARY,
        "config",
        "server/logging",
        "proto",
        "server/rpc",
        "server/metrics",
        "server/scheduling",
        "server/repository",
        "server/routing",
        "server",
    ],
    "server": [
        "engine/engine.h",
        *VOCABULARY,
        "config",
        "server/capture",
        "server/logging",
        "proto",
        "server/metrics",
        "server/scheduling",
        "server/sequence",
        "server/repository",
        "server/routing",
        "server/rpc",
        "server/http",
        "server/tls",
        "server/tracing",
    ],
    "cli": ["engine/engine.h", *VOCABULARY, "config", "proto", "server", "server/http", "server/routing", "server/tls"],
    "tests": ["*"],
}

# Third party -> (what its headers look like, the folders that may include them; their subfolders too).
THIRD_PARTIES = {
    "oneDNN": (r"oneapi/dnnl/|dnnl\.hpp|dnnl\.h", ["engine/onednn"]),
    "Highway": (r"hwy/", ["engine/tensor", "engine/ops"]),
    "RE2": (r"re2/", ["engine/ops"]),
    "ONNX": (r"onnx/", ["engine/onnx"]),
    "protobuf": (r"google/protobuf/", ["engine/onnx", "server/rpc", "server/http", "cli"]),
    "gRPC": (r"grpc/|grpcpp/", ["server/rpc", "server", "cli"]),
    "Prometheus": (r"prometheus/", ["server/metrics"]),
    "yaml-cpp": (r"yaml-cpp/", ["config"]),
    "libjpeg": (r"jpeglib\.h|jerror\.h", ["server/picture"]),
    "libpng": (r"png\.h", ["server/picture"]),
    "OpenSSL": (r"openssl/", ["server/tls"]),
    "zlib": (r"zlib\.h", ["server/rpc"]),
    "cpp-httplib": (r"httplib\.h", ["server/http", "cli"]),
    "CLI11": (r"CLI/", ["cli"]),
    "spdlog": (r"spdlog/", ["server", "cli"]),
    "OpenTelemetry": (r"opentelemetry/", ["server/tracing"]),
    "GoogleTest": (r"gtest/|gmock/", []),
    "Google Benchmark": (r"benchmark/", []),
    "Abseil": (r"absl/", ["cli", "config", "engine", "server"]),
    "nlohmann-json": (r"nlohmann/", ["cli", "config", "engine", "server"]),
}
# gRPC is for the top of server/ and for server/rpc, not for the folders beside it.
EXACT = {("gRPC", "server")}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def _within(folder, parent):
    return folder == parent or folder.startswith(parent + "/")


def row_of(folder):
    """Returns the folder of OURS that holds for a folder: itself or its nearest ancestor; None outside the table."""
    while folder not in OURS and "/" in folder:
        folder = folder.rpartition("/")[0]
    return folder if folder in OURS else None


def _third_party(header):
    for name, (pattern, _) in THIRD_PARTIES.items():
        if re.match(pattern, header):
            return name
    return None


def _check_third_party(folder, name):
    if _within(folder, "tests"):
        return None
    for allowed in THIRD_PARTIES[name][1]:
        if folder == allowed or ((name, allowed) not in EXACT and _within(folder, allowed)):
            return None
    where = ", ".join(THIRD_PARTIES[name][1]) or "tests"
    return f"{name} may be included by {where} alone, not by {folder}"


def _check_ours(row, header, bracket, root):
    target = header.rpartition("/")[0]
    generated = header.endswith(".pb.h") and target == "proto"
    if not generated and not (root / header).is_file():
        if bracket == "<" or (root / target).is_dir() and target:
            return None  # a system header, or ours but missing, which the compiler tells better
        return f'"{header}" is not relative to the root of the checkout'
    if bracket == "<":
        return f"<{header}> is ours: include it in quotes"
    allowed = OURS[row]
    target_row = row_of(target)
    if "*" in allowed or target_row == row or header in allowed or target_row in allowed:
        return None
    return f"{row} may not include {header} (allowed: {', '.join(allowed) or 'nothing else'})"


def check_line(path, line, root=ROOT):
    """Returns what is wrong with one line of the C++ file at path, or None."""
    match = INCLUDE.match(line)
    if not match:
        return None
    bracket, header = match.groups()
    folder = str(pathlib.PurePosixPath(path).parent)
    row = row_of(folder)
    if row is None:
        return f"{folder} has no row in the include table of tests/lint/includes.py"
    if ".." in header.split("/"):
        return f'"{header}" climbs: include from the root of the checkout'
    name = _third_party(header)
    if name and not (root / header).is_file():
        return _check_third_party(folder, name)
    return _check_ours(row, header, bracket, root)


def find_cycle(includes):
    """Returns a list of headers that include each other in a circle, or None. includes: header -> headers."""
    done = set()

    def visit(header, trail):
        if header in trail:
            return [*trail[trail.index(header) :], header]
        if header in done:
            return None
        for target in includes.get(header, []):
            cycle = visit(target, [*trail, header])
            if cycle:
                return cycle
        done.add(header)
        return None

    return next((cycle for cycle in (visit(header, []) for header in includes) if cycle), None)


def _check_cycles(root):
    includes = {}
    for path in cpp_files(root):
        lines = read_text(path, root) or []
        matches = [match for match in map(INCLUDE.match, lines) if match and match.group(1) == '"']
        includes[str(path)] = [match.group(2) for match in matches]
    cycle = find_cycle(includes)
    return [Violation(cycle[0], 0, f"includes itself: {' -> '.join(cycle)}")] if cycle else []


def check(root=ROOT):
    violations = []
    for path in cpp_files(root):
        for number, line in enumerate(read_text(path, root) or [], start=1):
            message = check_line(path, line, root)
            if message:
                violations.append(Violation(str(path), number, message))
    return violations + _check_cycles(root)
