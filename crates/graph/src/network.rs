//! A graph seen as a network: convolutions with what scales and shifts their channels after them,
//! joined by other operators.
//!
//! Exporters write one and the same layer in many ways: BatchNorm kept, folded into the
//! convolution before it, or spelled out as a product and a sum; a residual scale as a node of its
//! own or in the weights. Here all of them are one [`Unit`] with a different [`Step`] list.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::attributes::float;
use super::operator::describe_operator;
use super::tensor::{ints as stored_ints, numel, values};
use super::view::{View, readers};
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// Inputs of a `Concat` with those of others in it, which a small file could double without end. A
/// dense block joins about fifty.
const MAX_JOINED: usize = 256;

/// What a graph computes, in an order in which every unit follows what it reads.
pub struct Network<'a> {
    /// The parts.
    pub units: Vec<Unit<'a>>,
    /// Index of the unit that makes the features.
    pub output: usize,
}

/// One operator; a convolution or normalisation with all per-channel steps that follow it.
pub struct Unit<'a> {
    /// The first of its nodes.
    pub node: &'a NodeProto,
    /// Operator and attributes, defaults filled in.
    pub operator: String,
    /// What it reads.
    pub inputs: Vec<UnitInput<'a>>,
    /// A convolution's filters `[out, in / groups, kh, kw]`.
    pub filters: Option<&'a TensorProto>,
    /// What happens to each channel by itself, in order.
    pub steps: Vec<Step<'a>>,
    /// Covers the unit and all that it depends on; equal where two units compute the same
    /// function of the image and of weights of the same shapes.
    pub signature: u64,
}

/// Where a unit's input comes from.
#[derive(Debug, Clone, Copy)]
pub enum UnitInput<'a> {
    /// The image, or another input of the graph.
    Image,
    /// Another unit.
    Unit(usize),
    /// A stored value of the operator.
    Stored(&'a TensorProto),
}

/// Something done to each channel by itself.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Adds a stored value; subtracts it if `negative`.
    Shift {
        /// One value, or one a channel.
        by: &'a TensorProto,
        /// Subtract.
        negative: bool,
    },
    /// Multiplies by a stored value; divides by it if `inverse`.
    Scale {
        /// One value, or one a channel.
        by: &'a TensorProto,
        /// Divide.
        inverse: bool,
    },
    /// Batch normalisation with stored statistics.
    Norm(Norm<'a>),
}

/// Parameters of a BatchNormalization, one value a channel each.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Scale, shift, running mean and running variance.
    pub parameters: [&'a TensorProto; 4],
    /// Added to the variance.
    pub epsilon: f64,
}

impl<'a> Network<'a> {
    /// Reads a normalised graph.
    ///
    /// # Errors
    ///
    /// The output is no node's, or the graph has a cycle.
    pub fn new(graph: &'a GraphProto) -> Result<Self, GraphError> {
        let view = View::new(graph)?;
        let mut builder = Builder {
            readers: readers(graph),
            made_by: HashMap::new(),
            units: Vec::new(),
            view: &view,
        };
        for index in view.order()? {
            builder.add(&graph.node[index]);
        }
        let output = graph
            .output
            .first()
            .map_or("", |output| output.name.as_str());
        let output = builder.made_by.get(output).copied().ok_or_else(|| {
            GraphError::Invalid(format!("no node computes the output `{output}`"))
        })?;
        Ok(Self {
            units: builder.units,
            output,
        })
    }

    /// The signature of the whole.
    #[must_use]
    pub fn signature(&self) -> u64 {
        self.units[self.output].signature
    }

    /// Channels of the feature map that the network ends in, as far as they can be told: where
    /// it ends in a sum or a ReLU, those of the convolutions before it.
    ///
    /// # Errors
    ///
    /// It ends in something else.
    pub fn features(&self) -> Result<usize, GraphError> {
        let mut index = self.output;
        loop {
            let unit = &self.units[index];
            if let Some(channels) = unit.channels() {
                return Ok(channels);
            }
            let (true, Some(&UnitInput::Unit(input))) = (
                matches!(unit.node.op_type.as_str(), "Relu" | "Add"),
                unit.inputs.first(),
            ) else {
                let reason = format!("{} says nothing of its channels", unit.describe());
                return Err(GraphError::Invalid(reason));
            };
            index = input;
        }
    }

    /// The signatures of all units.
    #[must_use]
    pub fn signatures(&self) -> HashSet<u64> {
        self.units.iter().map(|unit| unit.signature).collect()
    }
}

impl Unit<'_> {
    /// The unit as a person would name it.
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

    /// Channels of its result, where weights tell them.
    #[must_use]
    pub fn channels(&self) -> Option<usize> {
        match self.filters {
            Some(filters) => filters.dims.first().map(|&dim| dim as usize),
            None => self.steps.iter().find_map(Step::channels),
        }
    }

    /// Whether the order of its inputs is of no account.
    #[must_use]
    pub fn commutes(&self) -> bool {
        matches!(self.node.op_type.as_str(), "Add" | "Mul") && self.steps.is_empty()
    }
}

struct Builder<'a, 'v> {
    view: &'v View<'a>,
    readers: HashMap<&'a str, Vec<usize>>,
    made_by: HashMap<&'a str, usize>,
    units: Vec<Unit<'a>>,
}

impl<'a> Builder<'a, '_> {
    fn add(&mut self, node: &'a NodeProto) {
        let Some(output) = node.output.first() else {
            return;
        };
        if let Some((image, step)) = self.step(node) {
            let index = self.before(image).unwrap_or_else(|| {
                let inputs = vec![self.input(image)];
                self.push(node, "BatchNormalization".to_owned(), inputs, None)
            });
            self.units[index].steps.push(step);
            self.sign(index);
            self.made_by.insert(output, index);
            return;
        }
        let filters = node.input.get(1).and_then(|name| self.view.tensor(name));
        let filters = filters.filter(|_| node.op_type == "Conv");
        let operator = describe_operator(node);
        let index = if filters.is_some() {
            let inputs = vec![self.input(&node.input[0])];
            self.push(node, operator, inputs, filters)
        } else {
            let inputs = self.joined(node, &operator);
            self.push(node, operator, inputs, None)
        };
        let bias = node.input.get(2).filter(|_| filters.is_some());
        if let Some(by) = bias.and_then(|name| self.view.tensor(name)) {
            self.units[index].steps.push(Step::Shift {
                by,
                negative: false,
            });
        }
        self.made_by.insert(output, index);
    }

    fn push(
        &mut self,
        node: &'a NodeProto,
        operator: String,
        inputs: Vec<UnitInput<'a>>,
        filters: Option<&'a TensorProto>,
    ) -> usize {
        self.units.push(Unit {
            node,
            operator,
            inputs,
            filters,
            steps: Vec::new(),
            signature: 0,
        });
        self.sign(self.units.len() - 1);
        self.units.len() - 1
    }

    /// The unit that a per-channel step belongs to: one whose result nothing else reads.
    fn before(&self, image: &str) -> Option<usize> {
        let index = *self.made_by.get(image)?;
        let unit = &self.units[index];
        let takes_steps = unit.filters.is_some() || !unit.steps.is_empty();
        let alone = self.readers.get(image).is_some_and(|all| all.len() == 1);
        (takes_steps && alone).then_some(index)
    }

    /// A node that acts on each channel by itself: what it reads, and what it does.
    fn step(&self, node: &'a NodeProto) -> Option<(&'a str, Step<'a>)> {
        let tensor = |index: usize| {
            node.input
                .get(index)
                .and_then(|name| self.view.tensor(name))
        };
        let image = node.input.first()?.as_str();
        let per_channel = |at: usize| {
            let by = tensor(at)?;
            // A single value alone makes no unit: how many channels it meets is not known.
            let fits = channels_of(by)? > 1 || self.before(&node.input[1 - at]).is_some();
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
                    Step::Norm(Norm {
                        parameters,
                        epsilon,
                    }),
                ))
            }
            "Add" => either().map(|(image, by)| (image, Step::Shift { by, negative })),
            "Sub" => per_channel(1).map(|(image, by)| (image, Step::Shift { by, negative })),
            "Mul" => either().map(|(image, by)| (image, Step::Scale { by, inverse })),
            "Div" => per_channel(1).map(|(image, by)| (image, Step::Scale { by, inverse })),
            _ => None,
        }
    }

    fn input(&self, name: &'a str) -> UnitInput<'a> {
        match (self.view.tensor(name), self.made_by.get(name)) {
            (Some(tensor), _) => UnitInput::Stored(tensor),
            (None, Some(&unit)) => UnitInput::Unit(unit),
            (None, None) => UnitInput::Image,
        }
    }

    /// A node's inputs; those of a `Concat` in a `Concat` of the same axis stand in its place.
    fn joined(&self, node: &'a NodeProto, operator: &str) -> Vec<UnitInput<'a>> {
        let mut inputs = Vec::new();
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            match self.input(name) {
                UnitInput::Unit(index)
                    if node.op_type == "Concat"
                        && self.units[index].operator == operator
                        && inputs.len() + self.units[index].inputs.len() <= MAX_JOINED =>
                {
                    inputs.extend_from_slice(&self.units[index].inputs);
                }
                input => inputs.push(input),
            }
        }
        inputs
    }

    fn sign(&mut self, index: usize) {
        let unit = &self.units[index];
        let mut inputs: Vec<u64> = unit
            .inputs
            .iter()
            .map(|input| self.sign_input(input))
            .collect();
        if unit.commutes() {
            inputs.sort_unstable();
        }
        let shape = unit.filters.map(|filters| &filters.dims);
        // How a convolution's channels are scaled and shifted is no part of the structure.
        self.units[index].signature = hash_of(&(&unit.operator, shape, unit.channels(), inputs));
    }

    fn sign_input(&self, input: &UnitInput) -> u64 {
        match input {
            UnitInput::Image => hash_of(&"image"),
            UnitInput::Unit(index) => hash_of(&("unit", self.units[*index].signature)),
            // Numbers that steer an operator are part of it; weights are known by their shape.
            UnitInput::Stored(tensor) => match (stored_ints(tensor), values(tensor)) {
                (Ok(numbers), _) => hash_of(&("integers", numbers)),
                (_, Ok(number)) if number.len() == 1 => hash_of(&("number", number[0].to_bits())),
                _ => hash_of(&("weight", &tensor.dims)),
            },
        }
    }
}

impl Step<'_> {
    /// How many channels its values name; none for a single value.
    fn channels(&self) -> Option<usize> {
        let tensor = match self {
            Self::Shift { by, .. } | Self::Scale { by, .. } => by,
            Self::Norm(norm) => norm.parameters[0],
        };
        numel(tensor).ok().filter(|&count| count > 1)
    }
}

/// The number of channels that a stored operand of a sum or product names: `[C, 1, 1]`,
/// `[1, C, 1, 1]`, or a single value.
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
