//! Layers of a network, independent of how an exporter wrote them.
//!
//! Exporters write the same layer in many ways. BatchNorm is kept, folded into the convolution, or
//! written as a product and a sum; a residual scale is a separate node or part of the weights. All
//! of these become one [`Layer`] with a different list of [`ChannelOp`]s.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::attributes::float;
use super::operator::describe_operator;
use super::tensor::{ints as stored_ints, numel, values};
use super::view::{GraphView, readers};
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// Inputs of nested `Concat` nodes. A small file could double them at each level; a dense block
/// concatenates about 50.
const MAX_CONCAT_INPUTS: usize = 256;

/// Layers in topological order.
pub struct Network<'a> {
    pub layers: Vec<Layer<'a>>,
    /// Index of the layer that computes the features.
    pub output: usize,
}

/// One operator, or a convolution or BatchNorm with the per-channel operations after it.
pub struct Layer<'a> {
    /// The first of its nodes.
    pub node: &'a NodeProto,
    /// Operator and the attributes that differ from their defaults.
    pub operator: String,
    pub inputs: Vec<LayerInput<'a>>,
    /// A convolution's filters `[out, in / groups, kh, kw]`.
    pub filters: Option<&'a TensorProto>,
    /// Per-channel operations, in order.
    pub channel_ops: Vec<ChannelOp<'a>>,
    /// Hash over the layer and all layers that it depends on. Equal signatures mean the same function
    /// of the image and of weights of the same shapes.
    pub signature: u64,
}

/// Source of a layer's input.
#[derive(Debug, Clone, Copy)]
pub enum LayerInput<'a> {
    /// The image or another graph input.
    Image,
    /// Index of another layer.
    Layer(usize),
    /// A stored operand.
    Stored(&'a TensorProto),
}

/// An affine operation on each channel.
#[derive(Debug, Clone, Copy)]
pub enum ChannelOp<'a> {
    /// Adds a stored value, or subtracts it if `negative`.
    Shift {
        /// One value, or one per channel.
        by: &'a TensorProto,
        negative: bool,
    },
    /// Multiplies by a stored value, or divides by it if `inverse`.
    Scale {
        /// One value, or one per channel.
        by: &'a TensorProto,
        inverse: bool,
    },
    /// BatchNorm with stored statistics.
    BatchNorm(BatchNormParameters<'a>),
}

/// Parameters of a BatchNormalization, each with one value per channel.
#[derive(Debug, Clone, Copy)]
pub struct BatchNormParameters<'a> {
    /// Scale, shift, running mean and running variance.
    pub parameters: [&'a TensorProto; 4],
    /// Added to the variance.
    pub epsilon: f64,
}

impl<'a> Network<'a> {
    /// Reads a normalized graph.
    ///
    /// # Errors
    ///
    /// No node computes the output, or the graph has a cycle.
    pub fn new(graph: &'a GraphProto) -> Result<Self, GraphError> {
        let view = GraphView::new(graph)?;
        let mut builder = NetworkBuilder {
            readers: readers(graph),
            producers: HashMap::new(),
            layers: Vec::new(),
            view: &view,
        };
        for index in view.order()? {
            builder.add(&graph.node[index]);
        }
        let output = graph
            .output
            .first()
            .map_or("", |output| output.name.as_str());
        let output = builder.producers.get(output).copied().ok_or_else(|| {
            GraphError::Invalid(format!("no node computes the output `{output}`"))
        })?;
        Ok(Self {
            layers: builder.layers,
            output,
        })
    }

    /// Returns the signature of the output layer.
    #[must_use]
    pub fn signature(&self) -> u64 {
        self.layers[self.output].signature
    }

    /// Returns the channels of the last feature map, from the weights before trailing `Add` and `Relu`.
    ///
    /// # Errors
    ///
    /// The network ends in another operator without weights.
    pub fn features(&self) -> Result<usize, GraphError> {
        let mut index = self.output;
        loop {
            let layer = &self.layers[index];
            if let Some(channels) = layer.channels() {
                return Ok(channels);
            }
            let (true, Some(&LayerInput::Layer(input))) = (
                matches!(layer.node.op_type.as_str(), "Relu" | "Add"),
                layer.inputs.first(),
            ) else {
                let reason = format!("the number of channels of {} is unknown", layer.describe());
                return Err(GraphError::Invalid(reason));
            };
            index = input;
        }
    }

    /// Returns the signatures of all layers.
    #[must_use]
    pub fn signatures(&self) -> HashSet<u64> {
        self.layers.iter().map(|layer| layer.signature).collect()
    }
}

impl Layer<'_> {
    /// Returns operator, weight shape and node name for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let shape = self.filters.map_or_else(String::new, |filters| {
            format!(" with weights {:?}", filters.dims)
        });
        let outputs = || self.node.output.first().map_or("", String::as_str);
        let name = Some(self.node.name.as_str()).filter(|name| !name.is_empty());
        format!(
            "{}{shape} (node `{}`)",
            self.operator,
            name.unwrap_or_else(outputs)
        )
    }

    /// Returns the number of output channels, if the layer has weights.
    #[must_use]
    pub fn channels(&self) -> Option<usize> {
        match self.filters {
            Some(filters) => filters.dims.first().map(|&dim| dim as usize),
            None => self.channel_ops.iter().find_map(ChannelOp::channels),
        }
    }

    /// Returns whether the order of the inputs is irrelevant.
    #[must_use]
    pub fn commutes(&self) -> bool {
        matches!(self.node.op_type.as_str(), "Add" | "Mul") && self.channel_ops.is_empty()
    }
}

struct NetworkBuilder<'a, 'v> {
    view: &'v GraphView<'a>,
    readers: HashMap<&'a str, Vec<usize>>,
    producers: HashMap<&'a str, usize>,
    layers: Vec<Layer<'a>>,
}

impl<'a> NetworkBuilder<'a, '_> {
    fn add(&mut self, node: &'a NodeProto) {
        let Some(output) = node.output.first() else {
            return;
        };
        if let Some((input, operation)) = self.channel_op(node) {
            let index = self.preceding_layer(input).unwrap_or_else(|| {
                let inputs = vec![self.input(input)];
                self.push(node, "BatchNormalization".to_owned(), inputs, None)
            });
            self.layers[index].channel_ops.push(operation);
            self.update_signature(index);
            self.producers.insert(output, index);
            return;
        }
        let filters = node.input.get(1).and_then(|name| self.view.tensor(name));
        let filters = filters.filter(|_| node.op_type == "Conv");
        let operator = describe_operator(node);
        let index = if filters.is_some() {
            let inputs = vec![self.input(&node.input[0])];
            self.push(node, operator, inputs, filters)
        } else {
            let inputs = self.concat_inputs(node, &operator);
            self.push(node, operator, inputs, None)
        };
        let bias = node.input.get(2).filter(|_| filters.is_some());
        if let Some(by) = bias.and_then(|name| self.view.tensor(name)) {
            self.layers[index].channel_ops.push(ChannelOp::Shift {
                by,
                negative: false,
            });
        }
        self.producers.insert(output, index);
    }

    fn push(
        &mut self,
        node: &'a NodeProto,
        operator: String,
        inputs: Vec<LayerInput<'a>>,
        filters: Option<&'a TensorProto>,
    ) -> usize {
        self.layers.push(Layer {
            node,
            operator,
            inputs,
            filters,
            channel_ops: Vec::new(),
            signature: 0,
        });
        self.update_signature(self.layers.len() - 1);
        self.layers.len() - 1
    }

    /// Returns the layer that a per-channel operation extends: no other node may read its output.
    fn preceding_layer(&self, input: &str) -> Option<usize> {
        let index = *self.producers.get(input)?;
        let layer = &self.layers[index];
        let has_channel_ops = layer.filters.is_some() || !layer.channel_ops.is_empty();
        let only_reader = self.readers.get(input).is_some_and(|all| all.len() == 1);
        (has_channel_ops && only_reader).then_some(index)
    }

    /// Returns input and operation of a node that acts on each channel separately.
    fn channel_op(&self, node: &'a NodeProto) -> Option<(&'a str, ChannelOp<'a>)> {
        let tensor = |index: usize| {
            node.input
                .get(index)
                .and_then(|name| self.view.tensor(name))
        };
        let image = node.input.first()?.as_str();
        let per_channel = |at: usize| {
            let by = tensor(at)?;
            // A scalar cannot start a layer, because its number of channels is unknown.
            let fits = channels_of(by)? > 1 || self.preceding_layer(&node.input[1 - at]).is_some();
            fits.then_some((node.input[1 - at].as_str(), by))
        };
        let either = || per_channel(1).or_else(|| per_channel(0));
        let (negative, inverse) = (node.op_type == "Sub", node.op_type == "Div");
        match node.op_type.as_str() {
            "BatchNormalization" => {
                let parameters = [tensor(1)?, tensor(2)?, tensor(3)?, tensor(4)?];
                let epsilon = f64::from(float(node, "epsilon", 1e-5));
                Some((
                    image,
                    ChannelOp::BatchNorm(BatchNormParameters {
                        parameters,
                        epsilon,
                    }),
                ))
            }
            "Add" => either().map(|(image, by)| (image, ChannelOp::Shift { by, negative })),
            "Sub" => per_channel(1).map(|(image, by)| (image, ChannelOp::Shift { by, negative })),
            "Mul" => either().map(|(image, by)| (image, ChannelOp::Scale { by, inverse })),
            "Div" => per_channel(1).map(|(image, by)| (image, ChannelOp::Scale { by, inverse })),
            _ => None,
        }
    }

    fn input(&self, name: &'a str) -> LayerInput<'a> {
        match (self.view.tensor(name), self.producers.get(name)) {
            (Some(tensor), _) => LayerInput::Stored(tensor),
            (None, Some(&layer)) => LayerInput::Layer(layer),
            (None, None) => LayerInput::Image,
        }
    }

    /// Returns the inputs of a node. A `Concat` of the same axis is replaced by its own inputs.
    fn concat_inputs(&self, node: &'a NodeProto, operator: &str) -> Vec<LayerInput<'a>> {
        let mut inputs = Vec::new();
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            match self.input(name) {
                LayerInput::Layer(index)
                    if node.op_type == "Concat"
                        && self.layers[index].operator == operator
                        && inputs.len() + self.layers[index].inputs.len() <= MAX_CONCAT_INPUTS =>
                {
                    inputs.extend_from_slice(&self.layers[index].inputs);
                }
                input => inputs.push(input),
            }
        }
        inputs
    }

    fn update_signature(&mut self, index: usize) {
        let layer = &self.layers[index];
        let mut inputs: Vec<u64> = layer
            .inputs
            .iter()
            .map(|input| self.input_signature(input))
            .collect();
        if layer.commutes() {
            inputs.sort_unstable();
        }
        let shape = layer.filters.map(|filters| &filters.dims);
        // Per-channel operations are not part of the structure.
        self.layers[index].signature = hash_of(&(&layer.operator, shape, layer.channels(), inputs));
    }

    fn input_signature(&self, input: &LayerInput) -> u64 {
        match input {
            LayerInput::Image => hash_of(&"image"),
            LayerInput::Layer(index) => hash_of(&("layer", self.layers[*index].signature)),
            // Integers and scalars are part of the operator; weights count by their shape.
            LayerInput::Stored(tensor) => match (stored_ints(tensor), values(tensor)) {
                (Ok(numbers), _) => hash_of(&("integers", numbers)),
                (_, Ok(number)) if number.len() == 1 => hash_of(&("number", number[0].to_bits())),
                _ => hash_of(&("weight", &tensor.dims)),
            },
        }
    }
}

impl ChannelOp<'_> {
    /// Returns the number of channels, or `None` for a scalar.
    fn channels(&self) -> Option<usize> {
        let tensor = match self {
            Self::Shift { by, .. } | Self::Scale { by, .. } => by,
            Self::BatchNorm(norm) => norm.parameters[0],
        };
        numel(tensor).ok().filter(|&count| count > 1)
    }
}

/// Returns the number of channels of a stored operand: `[C, 1, 1]`, `[1, C, 1, 1]` or a scalar (1).
fn channels_of(tensor: &TensorProto) -> Option<usize> {
    let count = numel(tensor).ok()?;
    let channels = match tensor.dims[..] {
        [c, 1, 1] | [1, c, 1, 1] => usize::try_from(c).ok()?,
        _ => 1,
    };
    (count == channels && stored_ints(tensor).is_err()).then_some(count)
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
