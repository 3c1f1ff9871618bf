//! Hostile files: each is refused with a message that names the reason.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::tensor::set_values;
use crate::view::GraphView;
use crate::{
    AttributeProto, GraphError, GraphProto, Message, ModelProto, NodeProto, TensorProto,
    ValueInfoProto, check, read, read_bytes,
};

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = op.into();
    node.name = format!("/{output}");
    node.input = inputs.iter().map(ToString::to_string).collect();
    node.output.push(output.into());
    node
}

fn value(name: &str) -> ValueInfoProto {
    let mut value = ValueInfoProto::new();
    value.name = name.into();
    value
}

pub(super) fn weight(name: &str, dims: &[i64]) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = dims.to_vec();
    let count = dims.iter().product::<i64>() as usize;
    set_values(&mut tensor, &vec![1.0; count]);
    tensor
}

/// A convolution and its bias; `graph.node[1]` is a constant.
pub(super) fn model() -> ModelProto {
    let mut model = ModelProto::new();
    model.opset_import.push(<_>::default());
    model.opset_import[0].version = 17;
    let graph = model.graph.mut_or_insert_default();
    graph.input.push(value("image"));
    graph.output.push(value("sum"));
    graph.initializer.push(weight("w", &[2, 3, 1, 1]));
    graph.node = vec![
        node("Conv", &["image", "w"], "a"),
        node("Constant", &[], "one"),
        node("Add", &["a", "one"], "sum"),
    ];
    let mut attribute = AttributeProto::new();
    attribute.name = "value".into();
    attribute.t = Some(weight("", &[2, 1, 1])).into();
    graph.node[1].attribute.push(attribute);
    model
}

pub(super) fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.mut_or_insert_default()
}

pub(super) fn bytes(model: &ModelProto) -> Vec<u8> {
    model.write_to_bytes().unwrap()
}

/// Returns why the edited model is refused; weights are checked too.
pub(super) fn rejection(edit: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = model();
    edit(&mut model);
    read_bytes(&bytes(&model))
        .and_then(|model| check::check_weights(&model.graph))
        .expect_err("it must be refused")
        .to_string()
}

#[track_caller]
pub(super) fn assert_contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn accepts_the_valid_model() {
    let read = read_bytes(&bytes(&model())).unwrap();
    check::check_weights(&read.graph).unwrap();
    assert_eq!(read, model());
}

#[test]
fn refuses_truncated_files() {
    let whole = bytes(&model());
    let mut accepted = 0;
    for length in 0..whole.len() {
        accepted += usize::from(read_bytes(&whole[..length]).is_ok());
    }
    // The operator set comes after the graph, so no shorter file is a model.
    assert_eq!(accepted, 0);
}

#[test]
fn changed_bytes_do_not_panic() {
    let whole = bytes(&model());
    for at in 0..whole.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 1, whole[at] ^ 0x80] {
            let mut changed = whole.clone();
            changed[at] = byte;
            if let Ok(model) = read_bytes(&changed) {
                let _ = check::check_weights(&model.graph);
            }
        }
    }
}

#[test]
fn refuses_lengths_beyond_the_file() {
    // The graph is field 7 of a model: of 2^62 bytes, then of 2^70, which exceeds 64 bits.
    let huge = [0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    let message = read_bytes(&huge).unwrap_err().to_string();
    assert_contains(&message, &["a field of 4611686018427387904 bytes", ".onnx"]);
    let more = [&[0x3a], &[0xff; 10][..], &[1]].concat();
    assert_contains(
        &read_bytes(&more).unwrap_err().to_string(),
        &["more than 64 bits"],
    );
    // A graph whose node is longer than the graph.
    let nested = [0x3a, 3, 0x0a, 100, 0, 0, 0, 0];
    assert_contains(
        &read_bytes(&nested).unwrap_err().to_string(),
        &["a field of 100 bytes"],
    );
}

#[test]
fn refuses_small_files_that_need_much_memory() {
    let field = |tag: u8, content: &[u8]| {
        let mut bytes = vec![tag];
        let mut length = content.len();
        while length > 0x7f {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [&bytes, content].concat()
    };
    // Nodes of two bytes each: 2 MB in the file, hundreds of MB in memory.
    let nodes = field(0x3a, &[0x0a, 0].repeat(1 << 20));
    assert_contains(
        &read_bytes(&nodes).unwrap_err().to_string(),
        &["bytes of structure", "at most"],
    );
    let names = field(0x3a, &field(0x0a, &[0x0a, 0].repeat(9 << 20)));
    assert_contains(
        &read_bytes(&names).unwrap_err().to_string(),
        &["bytes of structure"],
    );
    // Each unknown field has its own table entry.
    let unknown: Vec<u8> = (1_u32 << 20..1 << 21)
        .flat_map(|tag| {
            [
                tag as u8 & 0x78 | 0x80,
                (tag >> 7) as u8 | 0x80,
                (tag >> 14) as u8,
                0,
            ]
        })
        .collect();
    let message = read_bytes(&unknown).unwrap_err().to_string();
    assert_contains(&message, &["bytes of structure"]);
    // An int64 takes one byte when packed, eight in memory.
    let packed = field(0x3a, &field(0x2a, &field(0x3a, &vec![0; (256 << 20) + 1])));
    assert_contains(
        &read_bytes(&packed).unwrap_err().to_string(),
        &["bytes of typed weights"],
    );
}

#[test]
fn refuses_deep_nesting() {
    // A graph in an attribute of a node of a graph, 100,000 levels deep.
    let mut bytes = Vec::new();
    for tag in [0x32, 0x2a, 0x0a].iter().cycle().take(300_001) {
        let mut length = bytes.len();
        let mut varint = Vec::new();
        while length > 0x7f {
            varint.push(length as u8 | 0x80);
            length >>= 7;
        }
        varint.push(length as u8);
        // Built from the inside out, so in reverse.
        varint.reverse();
        bytes.extend(varint);
        bytes.push(*tag);
    }
    *bytes.last_mut().unwrap() = 0x3a;
    bytes.reverse();
    let message = read_bytes(&bytes).unwrap_err().to_string();
    assert_contains(&message, &["is not an ONNX model", "recursion limit"]);
}

#[test]
fn refuses_cycles_and_undefined_values() {
    let message = rejection(|m| graph(m).node[0].input[0] = "sum".into());
    assert_contains(&message, &["depends on itself"]);
    let message = rejection(|m| {
        graph(m).node.push(node("Identity", &["y"], "x"));
        graph(m).node.push(node("Identity", &["x"], "y"));
    });
    assert_contains(&message, &["depends on itself"]);
    let message = rejection(|m| graph(m).node[0].input[1] = "gone".into());
    assert_contains(&message, &["nothing defines `gone`"]);
    let message = rejection(|m| graph(m).output[0].name = "gone".into());
    assert_contains(&message, &["nothing defines `gone`"]);
    assert_contains(&rejection(|m| graph(m).output.clear()), &["no output"]);
    assert_contains(&rejection(|m| graph(m).node.clear()), &["no graph"]);
    assert_contains(&rejection(|m| m.graph.clear()), &["no graph"]);
}

#[test]
fn refuses_repeated_names() {
    let twice = "`a` is defined twice";
    assert_contains(
        &rejection(|m| graph(m).node[2].output.push("a".into())),
        &[twice],
    );
    assert_contains(
        &rejection(|m| graph(m).initializer.push(weight("a", &[1]))),
        &[twice],
    );
    assert_contains(&rejection(|m| graph(m).input.push(value("a"))), &[twice]);
    let message = rejection(|m| graph(m).input.push(value("image")));
    assert_contains(&message, &["`image` is defined twice"]);
    let message = rejection(|m| graph(m).initializer[0].name.clear());
    assert_contains(&message, &["has no name"]);
    let message = rejection(|m| {
        let attribute = graph(m).node[1].attribute[0].clone();
        graph(m).node[1].attribute.push(attribute);
    });
    assert_contains(&message, &["Constant (node `/one`)", "`value` twice"]);
    // Before IR version 4, weights are also graph inputs.
    let mut older = model();
    graph(&mut older).input.push(value("w"));
    read_bytes(&bytes(&older)).unwrap();
}

#[test]
fn supports_operator_sets_9_to_22() {
    for version in [i64::MIN, 0, 8, 23, 99, i64::MAX] {
        let message = rejection(|m| m.opset_import[0].version = version);
        assert_contains(&message, &[&format!("operator set {version}"), "9 to 22"]);
    }
    assert_contains(
        &rejection(|m| m.opset_import.clear()),
        &["does not import the standard"],
    );
    assert_contains(
        &rejection(|m| m.opset_import[0].domain = "com.microsoft".into()),
        &["does not import the standard"],
    );
    assert_contains(
        &rejection(|m| m.opset_import.push(m.opset_import[0].clone())),
        &["the standard operator set twice"],
    );
    for version in [9, 22] {
        let mut model = model();
        model.opset_import[0].version = version;
        read_bytes(&bytes(&model)).unwrap();
    }
}

#[test]
fn refuses_unsupported_parts_by_name() {
    let message = rejection(|m| graph(m).node[0].domain = "com.microsoft".into());
    assert_contains(
        &message,
        &["Conv (node `/a`)", "`com.microsoft`", "re-export"],
    );
    for op in ["If", "Loop", "Scan"] {
        let message = rejection(|m| graph(m).node[0].op_type = op.into());
        assert_contains(&message, &["control flow", &format!("{op} (node `/a`)")]);
    }
    let message = rejection(|m| {
        let mut branch = AttributeProto::new();
        branch.name = "body".into();
        branch.g = Some(GraphProto::new()).into();
        graph(m).node[0].attribute.push(branch);
    });
    assert_contains(&message, &["control flow", "Conv (node `/a`)"]);
    let message = rejection(|m| {
        m.functions.push(<_>::default());
        m.functions[0].name = "BatchNormTraining".into();
    });
    assert_contains(&message, &["the function `BatchNormTraining`", "inline"]);
    let message = rejection(|m| {
        graph(m).sparse_initializer.push(<_>::default());
        let sparse = &mut graph(m).sparse_initializer[0];
        sparse.values = Some(weight("sparse", &[1])).into();
    });
    assert_contains(&message, &["sparse initializer `sparse`"]);
    let message = rejection(|m| {
        graph(m).node[1].attribute[0].sparse_tensor = Some(<_>::default()).into();
    });
    assert_contains(&message, &["sparse tensor", "/one"]);
}

#[test]
fn refuses_counts_beyond_the_limits() {
    let message = rejection(|m| {
        let inputs = vec!["a".to_owned(); 1025];
        graph(m).node[2].input = inputs;
    });
    assert_contains(&message, &["1025 inputs of one node", "at most 1024"]);
    let message = rejection(|m| {
        let relu = node("Relu", &["a"], "");
        graph(m).node.extend(std::iter::repeat_n(relu, 100_000));
    });
    assert_contains(&message, &["100003 nodes", "at most 100000"]);
    let message = rejection(|m| {
        let empty = TensorProto::new();
        graph(m)
            .initializer
            .extend(std::iter::repeat_n(empty, 100_000));
    });
    assert_contains(&message, &["100001 initializers"]);
}

#[test]
fn long_chains_take_linear_time() {
    let mut long = model();
    let nodes = &mut graph(&mut long).node;
    // In reverse, so that each node comes before its input.
    for index in (1..90_000).rev() {
        let name = format!("i{index}");
        nodes.push(node("Identity", &[&format!("i{}", index - 1)], &name));
    }
    nodes.push(node("Relu", &["a"], "i0"));
    // Every input of every node names one of many inputs of the graph.
    graph(&mut long)
        .input
        .extend((0..90_000).map(|index| value(&format!("x{index}"))));
    for index in 0..9 {
        let inputs: Vec<String> = (0..1000).map(|at| format!("x{}", 89_000 + at)).collect();
        let mut concat = node("Concat", &[], &format!("c{index}"));
        concat.input = inputs;
        graph(&mut long).node.push(concat);
    }
    let started = Instant::now();
    let read = read_bytes(&bytes(&long)).unwrap();
    let view = GraphView::new(&read.graph).unwrap();
    assert_eq!(view.resolve("i89999"), "i0");
    assert_eq!(view.order().unwrap().len(), read.graph.node.len());
    // A quadratic walk takes minutes.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn refuses_a_file_of_3_gib_before_reading_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    File::create(&path).unwrap().set_len(3 << 30).unwrap();
    let started = Instant::now();
    let message = read(&path).unwrap_err().to_string();
    assert_contains(&message, &["3221225472 bytes long"]);
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_contains(
        &read(folder.path()).unwrap_err().to_string(),
        &["not a regular file"],
    );
    assert!(matches!(
        read(Path::new("/no/such/file")),
        Err(GraphError::Io(_))
    ));
}
