//! What the tests share: the program, folders of samples, a model that needs no training.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, Luma};
use onnx_ir::{
    AttributeProto, AttributeType, GraphProto, Message, ModelProto, NodeProto, ValueInfoProto,
};
use rgby::imaging::{CHANNELS, Preprocess};
use rgby::labels::hpa_classes;
use rgby::score::{INPUT_NAME, OUTPUT_NAME};
use rgby::spec::{METADATA_KEY, ModelSpec, Provenance};

/// Side of [`tiny_model`]'s input.
pub const SIDE: u32 = 8;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;

/// The program under test.
pub fn rgby() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rgby"))
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program in the folder `dir`, with arguments separated by spaces.
pub fn run(dir: &Path, args: &str) -> Run {
    let output = rgby()
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Says why a test checks nothing on this machine, past the test harness's capture.
pub fn skipped(why: impl Display) {
    writeln!(io::stderr(), "skipped: {why}").unwrap();
}

/// ONNX Runtime's library: `ORT_DYLIB_PATH`, or that of the Python package.
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
    let is_library = |name: &str| {
        name.starts_with("libonnxruntime.") && (name.contains(".so.") || name.ends_with(".dylib"))
    };
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_library))
        .map(|entry| entry.path())
        .next()
}

/// The names of all files and folders below `dir`, sorted.
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

/// Writes the four channels of a sample, each of one gray value, as 9×9 PNGs.
pub fn write_sample(dir: &Path, id: &str, grays: [u8; 4]) {
    for (channel, gray) in CHANNELS.iter().zip(grays) {
        let path = dir.join(format!("{id}_{channel}.png"));
        GrayImage::from_pixel(9, 9, Luma([gray]))
            .save(path)
            .unwrap();
    }
}

/// What [`tiny_model`] answers for a channel of one gray value.
pub fn probability(gray: u8) -> f32 {
    let input = (f32::from(gray) / 255.0 - 0.5) / 0.5;
    1.0 / (1.0 + (-input).exp())
}

/// A model of the 28 classes without weights: the probability of class `k` is the sigmoid of the
/// mean of channel `k % 4`. All thresholds are 0.5, but class 27's is 1.
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

/// Writes [`tiny_model`] to `model.onnx` in `dir`.
pub fn write_tiny_model(dir: &Path) {
    let bytes = tiny_model().write_to_bytes().unwrap();
    fs::write(dir.join("model.onnx"), bytes).unwrap();
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = op.into();
    node.input = inputs.iter().map(ToString::to_string).collect();
    node.output.push(output.into());
    node
}

/// A float32 value of shape `[N, sizes…]`.
fn value(name: &str, sizes: &[i64]) -> ValueInfoProto {
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
