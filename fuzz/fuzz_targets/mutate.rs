//! Mutates a graph: differences between exporters, and changes that no exporter makes.

use rgby_graph::tensor::{numel, set_values};
use rgby_graph::{GraphProto, Message, ModelProto, NodeProto, TensorProto};

/// Operators that patches or matching treat specially, and one that they do not (LSTM).
const OPERATORS: [&str; 34] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "Div",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "LSTM",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Shape",
    "Slice",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];
const ATTRIBUTES: [&str; 18] = [
    "alpha",
    "auto_pad",
    "axes",
    "axis",
    "beta",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "epsilon",
    "group",
    "keepdims",
    "kernel_shape",
    "mode",
    "pads",
    "perm",
    "strides",
    "to",
    "transB",
];
const INTEGERS: [i64; 14] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    -1,
    -2,
    -100,
    1 << 31,
    1 << 62,
    i64::MAX,
    i64::MIN,
];
const FLOATS: [f32; 8] = [0.0, -0.0, 1.0, -1.0, 1e-5, 1e38, f32::NAN, f32::INFINITY];

/// Returns the model with one to four changes, or `None` if the bytes are not a model.
pub fn graph(bytes: &[u8], seed: u64) -> Option<Vec<u8>> {
    let mut model = ModelProto::parse_from_bytes(bytes).ok()?;
    let mut random = SplitMix(seed);
    let graph = model
        .graph
        .as_mut()
        .filter(|graph| !graph.node.is_empty())?;
    for _ in 0..=random.below(4) {
        change(graph, &mut random);
    }
    model.write_to_bytes().ok()
}

fn change(graph: &mut GraphProto, random: &mut SplitMix) {
    let names = names(graph);
    let (index, name) = (
        random.below(graph.node.len()),
        random.choose(&names).clone(),
    );
    let count = graph.node.len();
    match random.below(12) {
        0 => graph.node[index].op_type = (*random.choose(&OPERATORS)).into(),
        1 => replace_input(&mut graph.node[index], name, random),
        2 => graph.node[index].input.push(name),
        3 => drop(graph.node[index].input.pop()),
        4 if count > 1 => drop(graph.node.remove(index)),
        5 => graph.node.swap(index, random.below(count)),
        6 => insert(graph, index, name, random),
        7 => attribute(&mut graph.node[index], random),
        8 => {
            let other = graph.node[random.below(count)].attribute.clone();
            graph.node[index].attribute = other;
        }
        9 => graph
            .output
            .iter_mut()
            .for_each(|output| output.name.clone_from(&name)),
        _ => {
            let constants = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
            let constants = constants.filter_map(|attribute| attribute.t.as_mut());
            let mut tensors: Vec<_> = graph.initializer.iter_mut().chain(constants).collect();
            if !tensors.is_empty() {
                let index = random.below(tensors.len());
                tensor(tensors[index], random);
            }
        }
    }
}

fn names(graph: &GraphProto) -> Vec<String> {
    let produced = graph.node.iter().flat_map(|node| &node.output).cloned();
    let stored = graph.initializer.iter().map(|tensor| tensor.name.clone());
    let inputs = graph.input.iter().map(|input| input.name.clone());
    let omitted = std::iter::once(String::new());
    produced
        .chain(stored)
        .chain(inputs)
        .chain(omitted)
        .collect()
}

fn replace_input(node: &mut NodeProto, name: String, random: &mut SplitMix) {
    if !node.input.is_empty() {
        let index = random.below(node.input.len());
        node.input[index] = name;
    }
}

/// Inserts a node, which may read a second value, before an input of an existing node.
fn insert(graph: &mut GraphProto, reader: usize, other: String, random: &mut SplitMix) {
    let Some(input) = graph.node[reader].input.first_mut() else {
        return;
    };
    let mut node = NodeProto::new();
    node.op_type = (*random.choose(&OPERATORS)).into();
    node.output.push(format!("new{}", random.next()));
    node.input
        .push(std::mem::replace(input, node.output[0].clone()));
    if random.below(2) == 0 {
        node.input.push(other);
    }
    attribute(&mut node, random);
    graph.node.insert(reader, node);
}

fn attribute(node: &mut NodeProto, random: &mut SplitMix) {
    if node.attribute.is_empty() || random.below(3) == 0 {
        node.attribute.push(<_>::default());
        let last = node.attribute.len() - 1;
        node.attribute[last].name = (*random.choose(&ATTRIBUTES)).into();
    }
    let index = random.below(node.attribute.len());
    let attribute = &mut node.attribute[index];
    match random.below(6) {
        0 => attribute.i = *random.choose(&INTEGERS),
        1 => attribute.f = *random.choose(&FLOATS),
        2 => {
            attribute.ints = (0..random.below(9))
                .map(|_| *random.choose(&INTEGERS))
                .collect()
        }
        3 if !attribute.ints.is_empty() => {
            let index = random.below(attribute.ints.len());
            attribute.ints[index] = *random.choose(&INTEGERS);
        }
        4 => attribute.name = (*random.choose(&ATTRIBUTES)).into(),
        _ => drop(node.attribute.remove(index)),
    }
}

fn tensor(tensor: &mut TensorProto, random: &mut SplitMix) {
    match random.below(4) {
        0 if !tensor.dims.is_empty() => {
            let index = random.below(tensor.dims.len());
            tensor.dims[index] = *random.choose(&INTEGERS);
        }
        1 => tensor.data_type = random.below(30) as i32,
        2 => drop(tensor.dims.pop()),
        _ => tensor.dims.push(1),
    }
    // Data of the new shape passes the first check.
    let count = numel(tensor).unwrap_or(usize::MAX);
    if tensor.data_type == 1 && count <= 4096 && tensor.raw_data.len() != count * 4 {
        set_values(tensor, &vec![*random.choose(&FLOATS); count]);
    }
    if tensor.data_type == 7 && count <= 64 && tensor.raw_data.len() != count * 8 {
        tensor.raw_data = tensor.raw_data.slice(..0);
        tensor.int64_data = (0..count).map(|_| *random.choose(&INTEGERS)).collect();
    }
}

/// SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn choose<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }
}
