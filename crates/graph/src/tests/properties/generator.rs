//! Random networks, in the forms that exporters write.

use proptest::prelude::*;

use crate::attributes::{set_float, set_int, set_ints};
use crate::tensor::{INT64, set_data, set_values};
use crate::tests::with_string;
use crate::{GraphProto, NodeProto, TensorProto};

/// One step of the generator: an operator and its parameters, interpreted modulo what is possible.
#[derive(Debug, Clone)]
pub struct Choice {
    operator: u8,
    parameters: [u8; 6],
    seed: u64,
}

/// Returns a strategy for 1 to 10 choices.
pub fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let choice = (any::<u8>(), any::<[u8; 6]>(), any::<u64>());
    let choice = choice.prop_map(|(operator, parameters, seed)| Choice {
        operator,
        parameters,
        seed,
    });
    prop::collection::vec(choice, 1..=10)
}

/// The operators from which a network is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Conv,
    BatchNorm,
    Relu,
    Binary,
    ConstantOperand,
    Concat,
    Pad,
    Pool,
    Identity,
    ComputedConstant,
    /// An operator without a channels-first form in the patches.
    Other,
    Reshape,
    /// Two 1×1 convolutions with strides.
    StridedPair,
}

/// A random network and its input.
pub struct RandomNetwork {
    pub graph: GraphProto,
    /// Shape of the image in the layout of the graph.
    pub dims: [usize; 4],
    pub image: Vec<f32>,
}

/// How a network is written.
#[derive(Clone, Copy)]
pub struct Form {
    pub families: &'static [Family],
    /// Values are `[N, H, W, C]`, as TensorFlow exporters write them.
    pub channels_last: bool,
    /// Weights and pixels are −1, 0 or 1, so that float16 is exact.
    pub small_integers: bool,
}

const SIDE: usize = 9;

/// A feature map `[1, c, h, w]`, stored in the layout of the graph.
#[derive(Clone)]
struct FeatureMap {
    name: String,
    channels: usize,
    height: usize,
    width: usize,
}

/// Builds the network that `choices` describe; its output is the last value.
pub fn network(choices: &[Choice], form: Form) -> RandomNetwork {
    let mut generator = Generator {
        graph: GraphProto::new(),
        form,
        maps: Vec::new(),
        random: SplitMix(choices.first().map_or(0, |choice| choice.seed)),
        names: 0,
    };
    generator.graph.input.push(<_>::default());
    generator.graph.input[0].name = "image".into();
    let image = FeatureMap {
        name: "image".into(),
        channels: 3,
        height: SIDE,
        width: SIDE,
    };
    generator.maps.push(image);
    for choice in choices {
        generator.random = SplitMix(choice.seed);
        generator.add(choice);
    }
    // A node computes the output even if nothing was added. `Clip` without bounds keeps its input.
    let last = generator.last();
    let output = generator.node("Clip", &[&last.name]);
    let mut graph = generator.graph;
    graph.output.push(<_>::default());
    graph.output[0].name = output;
    let dims = if form.channels_last {
        [1, SIDE, SIDE, 3]
    } else {
        [1, 3, SIDE, SIDE]
    };
    let mut random = SplitMix(1);
    let image = (0..3 * SIDE * SIDE)
        .map(|_| random.value(form.small_integers))
        .collect();
    RandomNetwork { graph, dims, image }
}

struct Generator {
    graph: GraphProto,
    form: Form,
    maps: Vec<FeatureMap>,
    random: SplitMix,
    names: usize,
}

impl Generator {
    fn last(&self) -> FeatureMap {
        self.maps.last().unwrap().clone()
    }

    fn add(&mut self, choice: &Choice) {
        let families = self.form.families;
        let p = choice.parameters.map(usize::from);
        // Mostly the last value, so that rewrites find chains.
        let distance = [0, 0, 0, 1, 2][p[5] % 5].min(self.maps.len() - 1);
        let source = self.maps[self.maps.len() - 1 - distance].clone();
        let map = match families[usize::from(choice.operator) % families.len()] {
            Family::Conv => self.conv(&source, p),
            Family::BatchNorm => self.batch_norm(&source),
            Family::Relu => self.unary("Relu", &source),
            Family::Binary => self.binary(&source, p),
            Family::ConstantOperand => self.constant_operand(&source, p),
            Family::Concat => self.concat(&source, p),
            Family::Pad => self.pad(&source, p),
            Family::Pool => self.pool(&source, p),
            Family::Identity => {
                let operator = ["Identity", "Dropout", "Concat"][p[0] % 3];
                let map = self.unary(operator, &source);
                let axis = self.channel_axis();
                if operator == "Concat" {
                    set_int(self.graph.node.last_mut().unwrap(), "axis", axis);
                }
                map
            }
            Family::ComputedConstant => self.computed_constant(&source, p),
            Family::Other => self.other(&source, p),
            Family::Reshape => self.reshape(&source),
            Family::StridedPair => self.strided_pair(&source, p),
        };
        self.maps.push(map);
    }

    fn channel_axis(&self) -> i64 {
        if self.form.channels_last { 3 } else { 1 }
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// Adds a node and returns its output.
    fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        let output = self.name(operator);
        let mut node = NodeProto::new();
        node.op_type = operator.into();
        node.name = format!("/{output}");
        node.input = inputs.iter().map(ToString::to_string).collect();
        node.output.push(output.clone());
        self.graph.node.push(node);
        output
    }

    fn attributes(&mut self) -> &mut NodeProto {
        self.graph.node.last_mut().unwrap()
    }

    fn weight(&mut self, dims: &[usize]) -> String {
        let small = self.form.small_integers;
        let count = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|_| self.random.value(small)).collect();
        self.stored(dims, &values)
    }

    fn stored(&mut self, dims: &[usize], values: &[f32]) -> String {
        let mut tensor = TensorProto::new();
        tensor.name = self.name("weight");
        tensor.dims = dims.iter().map(|&dim| dim as i64).collect();
        set_values(&mut tensor, values);
        let name = tensor.name.clone();
        self.graph.initializer.push(tensor);
        name
    }

    fn stored_ints(&mut self, values: &[i64]) -> String {
        let mut tensor = TensorProto::new();
        tensor.name = self.name("integers");
        tensor.dims = vec![values.len() as i64];
        set_data(
            &mut tensor,
            INT64,
            values.iter().flat_map(|value| value.to_le_bytes()),
        );
        let name = tensor.name.clone();
        self.graph.initializer.push(tensor);
        name
    }

    /// Runs `operator` on a value transposed to channels first, and transposes the result back.
    fn channels_first(
        &mut self,
        source: &FeatureMap,
        operator: impl FnOnce(&mut Self, &str) -> String,
    ) -> String {
        if !self.form.channels_last {
            return operator(self, &source.name);
        }
        let first = self.node("Transpose", &[&source.name]);
        set_ints(self.attributes(), "perm", &[0, 3, 1, 2]);
        let output = operator(self, &first);
        let last = self.node("Transpose", &[&output]);
        set_ints(self.attributes(), "perm", &[0, 2, 3, 1]);
        last
    }

    fn unary(&mut self, operator: &str, source: &FeatureMap) -> FeatureMap {
        FeatureMap {
            name: self.node(operator, &[&source.name]),
            ..source.clone()
        }
    }

    fn conv(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let limit = source.height.min(source.width);
        let kernel = [1, 2.min(limit), 3.min(limit)][p[0] % 3];
        let stride = 1 + p[1] % 2;
        let mode = ["", "VALID", "SAME_UPPER", "SAME_LOWER"][p[4] % 4];
        // ONNX Runtime does not support dilation with SAME padding.
        let dilated = kernel == 2 && limit > 2 && !mode.starts_with("SAME");
        let dilation = if dilated { 1 + p[1] / 2 % 2 } else { 1 };
        let groups = if p[2].is_multiple_of(3) {
            source.channels
        } else {
            1
        };
        let channels = groups * (1 + p[2] / 3 % 2);
        let weight = self.weight(&[channels, source.channels / groups, kernel, kernel]);
        let bias = p[3].is_multiple_of(2).then(|| self.weight(&[channels]));
        let extent = (kernel - 1) * dilation + 1;
        let pad = if mode.is_empty() { p[4] / 4 % 2 } else { 0 };
        let name = self.channels_first(source, |this, input| {
            let mut inputs = vec![input, &weight];
            inputs.extend(bias.as_deref());
            let output = this.node("Conv", &inputs);
            let node = this.attributes();
            set_ints(node, "strides", &[stride as i64; 2]);
            set_ints(node, "dilations", &[dilation as i64; 2]);
            set_int(node, "group", groups as i64);
            if mode.is_empty() {
                set_ints(node, "pads", &[pad as i64, 0, 0, pad as i64]);
            } else {
                with_string("auto_pad", mode)(node);
            }
            output
        });
        let size = |side: usize| {
            if mode.starts_with("SAME") {
                side.div_ceil(stride)
            } else {
                (side + pad - extent) / stride + 1
            }
        };
        FeatureMap {
            name,
            channels,
            height: size(source.height),
            width: size(source.width),
        }
    }

    fn batch_norm(&mut self, source: &FeatureMap) -> FeatureMap {
        let scale = self.weight(&[source.channels]);
        let shift = self.weight(&[source.channels]);
        let mean = self.weight(&[source.channels]);
        let variance: Vec<f32> = (0..source.channels)
            .map(|_| self.random.value(false).abs() + 0.5)
            .collect();
        let variance = self.stored(&[source.channels], &variance);
        let name = self.channels_first(source, |this, input| {
            let inputs = [input, &scale, &shift, &mean, &variance];
            let output = this.node("BatchNormalization", &inputs);
            set_float(this.attributes(), "epsilon", 1e-3);
            output
        });
        FeatureMap {
            name,
            ..source.clone()
        }
    }

    fn binary(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let same = |map: &&FeatureMap| {
            (map.channels, map.height, map.width) == (source.channels, source.height, source.width)
        };
        let candidates: Vec<&FeatureMap> = self.maps.iter().filter(same).collect();
        let other = candidates[p[0] % candidates.len()].name.clone();
        FeatureMap {
            name: self.node(["Add", "Mul", "Sub"][p[1] % 3], &[&source.name, &other]),
            ..source.clone()
        }
    }

    fn per_channel(&self, channels: usize, p: usize) -> Vec<usize> {
        match (self.form.channels_last, p % 3) {
            (_, 0) => vec![1],
            (true, 1) => vec![channels],
            (true, _) => vec![1, 1, channels],
            (false, 1) => vec![channels, 1, 1],
            (false, _) => vec![1, channels, 1, 1],
        }
    }

    fn constant_operand(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let dims = self.per_channel(source.channels, p[0]);
        let constant = self.weight(&dims);
        let operator = ["Mul", "Add", "Sub"][p[1] % 3];
        let inputs = if p[2].is_multiple_of(2) {
            [source.name.as_str(), &constant]
        } else {
            [constant.as_str(), &source.name]
        };
        FeatureMap {
            name: self.node(operator, &inputs),
            ..source.clone()
        }
    }

    fn concat(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let same = |map: &&FeatureMap| (map.height, map.width) == (source.height, source.width);
        let candidates: Vec<FeatureMap> = self.maps.iter().filter(same).cloned().collect();
        let other = &candidates[p[0] % candidates.len()];
        let axis = self.channel_axis();
        let name = self.node("Concat", &[&source.name, &other.name]);
        let axis = if p[1].is_multiple_of(2) {
            axis
        } else {
            axis - 4
        };
        set_int(self.attributes(), "axis", axis);
        FeatureMap {
            name,
            channels: source.channels + other.channels,
            ..source.clone()
        }
    }

    fn pad(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let [top, left, bottom, right] = [p[0] % 4, p[1] % 2, p[2] % 2, p[3] % 3];
        let amounts = |axes: [usize; 4]| axes.map(|amount| amount as i64);
        let (before, after) = if self.form.channels_last {
            (amounts([0, top, left, 0]), amounts([0, bottom, right, 0]))
        } else {
            (amounts([0, 0, top, left]), amounts([0, 0, bottom, right]))
        };
        let pads = self.stored_ints(&[before, after].concat());
        FeatureMap {
            name: self.node("Pad", &[&source.name, &pads]),
            channels: source.channels,
            height: source.height + top + bottom,
            width: source.width + left + right,
        }
    }

    fn pool(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let kernel = (2 + p[0] % 2).min(source.height).min(source.width);
        let stride = 1 + p[1] % 2;
        let operator = ["MaxPool", "AveragePool"][p[2] % 2];
        let pad = if kernel > 1 { p[3] % 2 } else { 0 };
        let count = p[4] % 2;
        let ceil = stride <= kernel && (p[4] / 2).is_multiple_of(4);
        let name = self.channels_first(source, |this, input| {
            let output = this.node(operator, &[input]);
            let node = this.attributes();
            set_ints(node, "kernel_shape", &[kernel as i64; 2]);
            set_ints(node, "strides", &[stride as i64; 2]);
            set_ints(node, "pads", &[pad as i64, pad as i64, 0, 0]);
            if operator == "AveragePool" && count > 0 {
                set_int(node, "count_include_pad", 1);
            }
            if ceil {
                set_int(node, "ceil_mode", 1);
            }
            output
        });
        let size = |side: usize| {
            let range = side + pad - kernel;
            let windows = if ceil {
                range.div_ceil(stride)
            } else {
                range / stride
            };
            windows + 1
        };
        FeatureMap {
            name,
            channels: source.channels,
            height: size(source.height),
            width: size(source.width),
        }
    }

    /// A per-channel operand that nodes compute from stored values.
    fn computed_constant(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let channels = source.channels;
        let stored = self.weight(&[channels]);
        let computed = match p[0] % 4 {
            0 => self.node("Neg", &[&stored]),
            1 => {
                let square = self.node("Mul", &[&stored, &stored]);
                self.node("Sqrt", &[&square])
            }
            2 => {
                let one = self.node("Constant", &[]);
                set_float(self.attributes(), "value_float", 1.0);
                self.node("Add", &[&stored, &one])
            }
            _ => {
                let shape = self.node("Shape", &[&stored]);
                let half = self.stored(&[1], &[0.5]);
                let expanded = self.node("Expand", &[&half, &shape]);
                self.node("Sub", &[&stored, &expanded])
            }
        };
        let dims: Vec<i64> = if self.form.channels_last {
            vec![1, 1, -1]
        } else {
            vec![channels as i64, 1, 1]
        };
        let operand = if p[1].is_multiple_of(2) {
            let shape = self.node("Constant", &[]);
            set_ints(self.attributes(), "value_ints", &dims);
            self.node("Reshape", &[&computed, &shape])
        } else {
            let axes = if self.form.channels_last {
                [0, 1]
            } else {
                [1, 2]
            };
            let axes = self.stored_ints(&axes);
            self.node("Unsqueeze", &[&computed, &axes])
        };
        FeatureMap {
            name: self.node(["Add", "Mul"][p[2] % 2], &[&source.name, &operand]),
            ..source.clone()
        }
    }

    fn other(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let operator = ["Softmax", "LeakyRelu", "Tanh", "Neg", "ReduceMean"][p[0] % 5];
        let name = self.node(operator, &[&source.name]);
        let axis = [1, 2, 3, -1, -3][p[1] % 5];
        match operator {
            "Softmax" => set_int(self.attributes(), "axis", axis),
            "ReduceMean" => {
                set_ints(self.attributes(), "axes", &[axis]);
                let broadcast = self.node("Add", &[&source.name, &name]);
                return FeatureMap {
                    name: broadcast,
                    ..source.clone()
                };
            }
            _ => {}
        }
        FeatureMap {
            name,
            ..source.clone()
        }
    }

    /// Flattens height and width and restores them.
    fn reshape(&mut self, source: &FeatureMap) -> FeatureMap {
        let [c, h, w] = [source.channels, source.height, source.width].map(|dim| dim as i64);
        let (flat, full) = if self.form.channels_last {
            ([1, h * w, c], [1, h, w, c])
        } else {
            ([1, c, h * w], [1, c, h, w])
        };
        let (flat, full) = (self.stored_ints(&flat), self.stored_ints(&full));
        let name = self.node("Reshape", &[&source.name, &flat]);
        FeatureMap {
            name: self.node("Reshape", &[&name, &full]),
            ..source.clone()
        }
    }

    fn strided_pair(&mut self, source: &FeatureMap, p: [usize; 6]) -> FeatureMap {
        let stride = 2 + p[0] % 2;
        let mut branches = Vec::new();
        for _ in 0..2 {
            let weight = self.weight(&[2, source.channels, 1, 1]);
            let branch = self.node("Conv", &[&source.name, &weight]);
            set_ints(self.attributes(), "strides", &[stride as i64; 2]);
            branches.push(branch);
        }
        FeatureMap {
            name: self.node("Add", &[&branches[0], &branches[1]]),
            channels: 2,
            height: source.height.div_ceil(stride),
            width: source.width.div_ceil(stride),
        }
    }
}

/// A `SplitMix64` generator.
struct SplitMix(u64);

impl SplitMix {
    /// Returns a value in −1..1, or one of −1, 0 and 1.
    fn value(&mut self, small_integer: bool) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if small_integer {
            (mixed % 3) as f32 - 1.0
        } else {
            (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }
}
