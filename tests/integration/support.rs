//! Test helpers: runs of the program, folders of samples, a model without weights.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use image::{GrayImage, Luma};
use rgby::graph::{
    AttributeProto, AttributeType, GraphProto, Message, ModelProto, NodeProto, TensorProto,
    ValueInfoProto,
};
use rgby::imaging::{CHANNELS, Preprocess};
use rgby::labels::hpa_classes;
use rgby::model_metadata::{EMBEDDINGS_NAME, METADATA_KEY, ModelSpec, Precision, Provenance};
use rgby::score::{INPUT_NAME, OUTPUT_NAME};
use serde_json::Value;
use tempfile::TempDir;

/// Side of [`tiny_model`]'s input.
pub const SIDE: u32 = 8;
/// `TensorProto.DataType.FLOAT`.
pub const FLOAT: i32 = 1;
/// `TensorProto.DataType.INT64`.
const INT64: i32 = 7;

/// Returns a command of the program under test.
pub fn rgby() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rgby"));
    // Some graphics drivers print errors if this folder is missing.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command
}

/// Exit code and output of the program.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program in `dir` with arguments separated by spaces.
pub fn run(dir: &Path, args: &str) -> Run {
    finish(rgby().args(args.split_whitespace()).current_dir(dir))
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs a command and waits for its end.
pub fn finish(command: &mut Command) -> Run {
    command.output().unwrap().into()
}

/// Runs the program and asserts exit code 0.
pub fn must(dir: &Path, args: &str) -> Run {
    let run = run(dir, args);
    assert_eq!(run.code, Some(0), "rgby {args}: {run:?}");
    run
}

/// Runs the program and parses the JSON document on stdout.
pub fn json(dir: &Path, args: &str) -> Value {
    serde_json::from_str(&must(dir, args).stdout).unwrap()
}

/// Starts the program in `dir` without output, with arguments separated by spaces.
pub fn spawn(dir: &Path, args: &str) -> Child {
    rgby()
        .args(args.split_whitespace())
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs the program with a file size limit of `blocks` × 512 bytes, which fails writes like a full
/// disk.
pub fn run_on_full_disk(dir: &Path, blocks: usize, args: &str) -> Run {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .arg(rgby().get_program())
        .args(args.split_whitespace());
    finish(command.current_dir(dir))
}

/// Sends the named signal to a process.
pub fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

/// Reports that a test needs a tool that is not installed. Continuous integration installs every
/// tool, so there it is a failure.
pub fn skipped(why: impl Display) {
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!ci, "not installed in CI: {why}");
    not_applicable(why);
}

/// Reports that a test has nothing to check on this machine, past the test harness's capture.
pub fn not_applicable(why: impl Display) {
    let line = format!("skipped: {why}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Returns ONNX Runtime's library: `ORT_DYLIB_PATH`, or that of the Python package.
pub fn ort_library() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let script = "import importlib.util as u; \
                  print(u.find_spec('onnxruntime').submodule_search_locations[0])";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let package = output.status.success().then_some(output.stdout)?;
    let folder = Path::new(String::from_utf8(package).ok()?.trim()).join("capi");
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    // The folder also contains `libonnxruntime_providers_*`.
    let is_library = |name: &str| name.starts_with("libonnxruntime.");
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_library))
        .map(|entry| entry.path())
        .next()
}

/// Asserts that each command line fails with exit code 2 and one error that contains the given
/// parts, and that it does not change the folder.
pub fn assert_refused(dir: &Path, cases: &[(&str, &[&str])]) {
    let before = listing(dir);
    // All missing parts are reported at once: after a change of wording there are several.
    let mut missing = Vec::new();
    for (args, parts) in cases {
        let run = run(dir, args);
        assert_eq!(run.code, Some(2), "{args}: {run:?}");
        assert!(run.stdout.is_empty(), "{args}: {run:?}");
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{args}: {run:?}");
        let absent = parts.iter().filter(|part| !run.stderr.contains(**part));
        missing.extend(absent.map(|part| format!("{args}: no `{part}` in {}", run.stderr)));
        assert_eq!(listing(dir), before, "{args} changed the folder");
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Returns the paths of all files and folders below `dir`, sorted.
pub fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Writes the four constant channels of a sample as 9×9 PNG files.
pub fn write_sample(dir: &Path, id: &str, grays: [u8; 4]) {
    for (channel, gray) in CHANNELS.iter().zip(grays) {
        let path = dir.join(format!("{id}_{channel}.png"));
        GrayImage::from_pixel(9, 9, Luma([gray]))
            .save(path)
            .unwrap();
    }
}

/// Replaces the content of `images` by synthetic samples.
pub fn draw_images(dir: &Path, count: usize, size: u32) {
    let images = dir.join("images");
    fs::remove_dir_all(&images).unwrap();
    must(
        dir,
        &format!("synth --out set --count {count} --size {size}"),
    );
    fs::rename(dir.join("set/images"), images).unwrap();
}

/// Returns the probability of [`tiny_model`] for a channel of one gray value.
pub fn probability(gray: u8) -> f32 {
    let input = (f32::from(gray) / 255.0 - 0.5) / 0.5;
    1.0 / (1.0 + (-input).exp())
}

/// Returns a model of the 28 classes without weights. The probability of class `k` is the sigmoid
/// of the mean of channel `k % 4`. All thresholds are 0.5, except 1 for class 27.
pub fn tiny_model() -> ModelProto {
    let mut graph = GraphProto::new();
    graph.name = "tiny".into();
    graph.node = vec![
        node("GlobalAveragePool", &[INPUT_NAME], "pooled"),
        node("Flatten", &["pooled"], "flat"),
        node("Concat", &["flat"; 7], "repeated"),
        node("Sigmoid", &["repeated"], OUTPUT_NAME),
    ];
    let mut axis = AttributeProto::new();
    axis.name = "axis".into();
    axis.type_ = AttributeType::INT.into();
    axis.i = 1;
    graph.node[2].attribute.push(axis);
    let side = i64::from(SIDE);
    graph.input.push(value(INPUT_NAME, &[4, side, side]));
    graph.output.push(value(OUTPUT_NAME, &[28]));
    let mut thresholds = vec![0.5; 28];
    thresholds[27] = 1.0;
    let spec = ModelSpec {
        arch: "tiny".into(),
        classes: hpa_classes(),
        thresholds,
        preprocess: Preprocess::new(&CHANNELS, SIDE),
        provenance: Provenance::default(),
        precision: Precision::Fp32,
        embeddings: None,
    };
    let mut model = ModelProto::new();
    model.ir_version = 8;
    model.opset_import.push(<_>::default());
    model.opset_import[0].version = 18;
    model.graph = Some(graph).into();
    model.metadata_props.push(<_>::default());
    model.metadata_props[0].key = METADATA_KEY.into();
    model.metadata_props[0].value = serde_json::to_string(&spec).unwrap();
    model
}

/// Changes the metadata of a model.
pub fn change_spec(model: &mut ModelProto, change: impl FnOnce(&mut ModelSpec)) {
    let entry = &mut model.metadata_props[0];
    let mut spec = serde_json::from_str(&entry.value).unwrap();
    change(&mut spec);
    entry.value = serde_json::to_string(&spec).unwrap();
}

/// Returns [`tiny_model`] with its four means as embeddings.
pub fn tiny_model_with_embeddings() -> ModelProto {
    let mut model = tiny_model();
    let graph = model.graph.as_mut().unwrap();
    graph.node[1].output[0] = EMBEDDINGS_NAME.into();
    graph.node[2].input = vec![EMBEDDINGS_NAME.into(); 7];
    graph.output.push(value(EMBEDDINGS_NAME, &[4]));
    change_spec(&mut model, |spec| spec.embeddings = Some(4));
    model
}

/// Writes a model and creates its parent folders.
pub fn write_model(path: &Path, model: &ModelProto) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, model.write_to_bytes().unwrap()).unwrap();
}

pub fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = op.into();
    node.input = inputs.iter().map(ToString::to_string).collect();
    node.output.push(output.into());
    node
}

/// Returns an initializer of integers.
pub fn integers(name: &str, values: &[i64]) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = vec![values.len() as i64];
    tensor.data_type = INT64;
    tensor.int64_data = values.to_vec();
    tensor
}

/// Returns a float32 value of shape `[N, sizes…]`.
pub fn value(name: &str, sizes: &[i64]) -> ValueInfoProto {
    let mut value = ValueInfoProto::new();
    value.name = name.into();
    let tensor = value.type_.mut_or_insert_default().mut_tensor_type();
    tensor.elem_type = FLOAT;
    let dims = &mut tensor.shape.mut_or_insert_default().dim;
    dims.resize_with(sizes.len() + 1, <_>::default);
    dims[0].set_dim_param("N".into());
    for (dim, size) in dims[1..].iter_mut().zip(sizes) {
        dim.set_dim_value(*size);
    }
    value
}

/// Creates a folder with `model.onnx` and an empty folder `images`.
pub fn workplace() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    write_model(&dir.path().join("model.onnx"), &tiny_model());
    dir
}

/// As [`workplace`], with three samples: `dark`, `light`, and `mixed` with a light red channel.
pub fn workplace_with_samples() -> TempDir {
    let dir = workplace();
    let images = dir.path().join("images");
    write_sample(&images, "dark", [10; 4]);
    write_sample(&images, "light", [240; 4]);
    write_sample(&images, "mixed", [240, 10, 10, 10]);
    dir
}

pub fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

/// Returns the records of a CSV file after its header.
pub fn records(dir: &Path, name: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(dir.join(name)).unwrap();
    let record = |r: csv::StringRecord| r.iter().map(str::to_owned).collect();
    reader.records().map(|r| record(r.unwrap())).collect()
}

/// Returns the probabilities of a scores file by id.
pub fn probabilities(dir: &Path, name: &str) -> BTreeMap<String, Vec<f32>> {
    let row = |r: &Vec<String>| r[1..].iter().map(|field| field.parse().unwrap()).collect();
    let scored = records(dir, name).into_iter().filter(|r| !r[1].is_empty());
    scored.map(|r| (r[0].clone(), row(&r))).collect()
}

/// Returns the classes `0..27`, the prediction for `light`. No probability reaches class 27's
/// threshold.
pub fn all_but_27() -> String {
    let classes: Vec<_> = (0..27).map(|class| class.to_string()).collect();
    classes.join(" ")
}
