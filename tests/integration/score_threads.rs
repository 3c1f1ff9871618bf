//! Threads, devices, and session options of ONNX Runtime.

use std::fs;
use std::path::Path;

use rgby::graph::TensorProto;
use serde_json::Value;

use crate::support::{
    FLOAT, Run, assert_refused, finish, node, not_applicable, ort_library, probabilities, read,
    rgby, run, skipped, tiny_model, workplace_with_samples, write_model,
};

const SCORE: &str = "score --model model.onnx --images images --out out.csv --scores p.csv";

/// Scores with ONNX Runtime; `None` if it is not installed.
fn onnx_runtime(dir: &Path, more: &str) -> Option<Run> {
    let Some(library) = ort_library() else {
        skipped("no ONNX Runtime: neither ORT_DYLIB_PATH nor a Python package");
        return None;
    };
    let mut command = rgby();
    command
        .args(format!("{SCORE} --engine onnxruntime {more}").split_whitespace())
        .arg("--ort-lib")
        .arg(library);
    Some(finish(command.current_dir(dir)))
}

#[test]
fn thread_split_is_reported_and_does_not_change_results() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let mut seen: Option<String> = None;
    let mut check = |run: Run, note: &str, split: [u64; 3]| {
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stderr.contains(note), "no {note} in {run:?}");
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        for (key, wanted) in ["decode_threads", "sessions", "intra_threads"]
            .iter()
            .zip(split)
        {
            assert_eq!(report["split"][key], wanted, "{report}");
        }
        let scores = read(path, "p.csv");
        assert_eq!(*seen.get_or_insert(scores.clone()), scores);
    };
    let tract = |more: &str| {
        run(
            path,
            &format!("{SCORE} --engine tract --json --batch 1 {more}"),
        )
    };
    check(
        tract("--sessions 3 --decode-threads 2"),
        "split: 2 decoding threads, 3 sessions of 1 thread",
        [2, 3, 1],
    );
    check(
        tract("--sessions 1 --intra-threads 1 --decode-threads 1"),
        "split: 1 decoding thread, 1 session of 1 thread",
        [1, 1, 1],
    );
    seen = None;
    let mut check = |more: &str, split: [u64; 3]| {
        let Some(run) = onnx_runtime(path, &format!("--json --batch 1 {more}")) else {
            return;
        };
        assert_eq!(run.code, Some(0), "{run:?}");
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["split"]["sessions"], split[1], "{report}");
        assert_eq!(report["split"]["intra_threads"], split[2], "{report}");
        let scores = read(path, "p.csv");
        assert_eq!(*seen.get_or_insert(scores.clone()), scores);
    };
    check("--sessions 2 --intra-threads 3", [0, 2, 3]);
    check("--sessions 1 --intra-threads 1", [0, 1, 1]);
    check("--sessions 5 --intra-threads 2", [0, 5, 2]);
}

#[test]
fn session_options_are_applied() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let Some(plain) = onnx_runtime(path, "") else {
        return;
    };
    assert_eq!(plain.code, Some(0), "{plain:?}");
    let expected = probabilities(path, "p.csv");
    for (optimization, flag) in [
        ("none", true),
        ("basic", false),
        ("extended", true),
        ("all", false),
    ] {
        let text = format!(
            "[session]\noptimization = \"{optimization}\"\nmemory_pattern = {flag}\n\
             cpu_arena = {flag}\nspinning = {flag}\n"
        );
        fs::write(path.join("engine.toml"), text).unwrap();
        let run = onnx_runtime(path, "--engine-config engine.toml --json").unwrap();
        assert_eq!(run.code, Some(0), "{run:?}");
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        let session = &report["engine_config"]["session"];
        assert_eq!(session["optimization"], optimization, "{report}");
        assert_eq!(session["cpu_arena"], flag, "{report}");
        for (id, row) in probabilities(path, "p.csv") {
            let mut pairs = row.iter().zip(&expected[&id]);
            assert!(pairs.all(|(a, b)| (a - b).abs() < 1e-6), "{optimization}");
        }
    }
}

#[test]
fn invalid_options_and_devices_are_errors() {
    let dir = workplace_with_samples();
    let path = dir.path();
    for (name, text) in [
        ("unknown.toml", "[session]\nthreads = 3\n"),
        ("kind.toml", "[session]\nspinning = \"no\"\n"),
        ("cuda.toml", "[cuda]\ntf32 = true\n"),
        ("tensorrt.toml", "[tensorrt]\nengine_cache = \"nowhere\"\n"),
        ("good.toml", "[session]\nspinning = true\n"),
    ] {
        fs::write(path.join(name), text).unwrap();
    }
    let add = |more: &str| format!("{SCORE} {more}");
    let cases: Vec<(String, &[&str])> = vec![
        (
            add("--engine-config unknown.toml"),
            &["unknown.toml", "unknown field `threads`", "`spinning`"],
        ),
        (
            add("--engine-config kind.toml"),
            &["kind.toml", "spinning = \"no\"", "boolean"],
        ),
        (
            add("--engine-config cuda.toml"),
            &["cuda.toml", "[cuda]", "--device cuda or tensorrt"],
        ),
        (
            add("--engine-config tensorrt.toml"),
            &["`tensorrt.engine_cache`", "no folder nowhere"],
        ),
        (
            add("--engine-config none.toml"),
            &["none.toml", "cannot be read"],
        ),
        (add("--engine-config images"), &["images", "is not a file"]),
        (
            add("--engine tract --engine-config good.toml"),
            &["good.toml", "options of ONNX Runtime"],
        ),
        (
            add("--engine tract --intra-threads 2"),
            &["--intra-threads", "use --sessions"],
        ),
        (add("--sessions 0"), &["--sessions"]),
        (add("--intra-threads 0"), &["--intra-threads"]),
        (
            add("--engine tract --device cuda:0,1"),
            &["--device cuda:0 is not available"],
        ),
        (add("--device cuda:1,1"), &["names cuda:1 twice"]),
        (add("--device cpu:0,1"), &["is not a device"]),
        (add("--device cpu,cuda"), &["is not a device"]),
    ];
    let cases: Vec<(&str, &[&str])> = cases.iter().map(|(args, w)| (&**args, *w)).collect();
    assert_refused(path, &cases);
    // A CPU build of ONNX Runtime rejects each of several devices.
    if let Some(run) = onnx_runtime(path, "--device tensorrt:0,1") {
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains("--device tensorrt:0"), "{run:?}");
    }
}

/// Returns a matrix of float32 values.
fn matrix(name: &str, sizes: [usize; 2]) -> TensorProto {
    let values = sizes[0] * sizes[1];
    let value = 1.0 / sizes[0] as f32;
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = sizes.map(|size| size as i64).to_vec();
    tensor.data_type = FLOAT;
    tensor.raw_data = value.to_le_bytes().repeat(values).into();
    tensor
}

#[test]
fn sessions_hold_the_weights_once() {
    const WIDE: [usize; 2] = [2048, 4096];
    const WEIGHTS_MB: f64 = (4 * WIDE[0] * WIDE[1]) as f64 / 1e6;
    let dir = workplace_with_samples();
    let path = dir.path();
    let Some(library) = ort_library() else {
        return skipped("no ONNX Runtime: neither ORT_DYLIB_PATH nor a Python package");
    };
    // The channels' means pass through a matrix with nearly all weights.
    let mut model = tiny_model();
    let graph = model.graph.as_mut().unwrap();
    let products = [("flat", "in"), ("first", "wide"), ("second", "out")];
    let results = ["first", "second", "third"];
    let after = graph.node.split_off(2);
    let products = products.iter().zip(results);
    graph.node.extend(
        products.map(|((value, weights), result)| node("MatMul", &[value, weights], result)),
    );
    graph.node.extend(after);
    graph.node[5].input = vec!["third".into(); 7];
    let weights = [("in", [4, WIDE[0]]), ("wide", WIDE), ("out", [WIDE[1], 4])];
    graph.initializer = weights.map(|(name, sizes)| matrix(name, sizes)).into();
    write_model(&path.join("wide.onnx"), &model);
    let peak = |sessions: &str| {
        let mut command = rgby();
        let args = "bench --model wide.onnx --images images --engine onnxruntime --batch-sizes 1 \
                    --intra-threads 1 --seconds 0.05 --rounds 1 --json --sessions";
        command.args(args.split_whitespace()).arg(sessions);
        let run = finish(command.arg("--ort-lib").arg(&library).current_dir(path));
        assert_eq!(run.code, Some(0), "{run:?}");
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        report["models"][0]["batches"][0]["end_to_end"]["peak_rss_mb"].as_f64()
    };
    let (Some(one), Some(four)) = (peak("1"), peak("4")) else {
        return not_applicable("this system does not report the peak memory of a process");
    };
    assert!(one > WEIGHTS_MB, "{one} MB with one session");
    let more = four - one;
    assert!(
        more < WEIGHTS_MB / 2.0,
        "four sessions take {more} MB more than one"
    );
}
