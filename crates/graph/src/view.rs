//! Read-only index of a graph: producers of values and topological order.

use std::collections::{HashMap, HashSet};

use super::{GraphError, GraphProto, TensorProto};

/// Index over a graph. Names are resolved through `Identity` nodes.
pub struct GraphView<'a> {
    pub graph: &'a GraphProto,
    inputs: HashSet<&'a str>,
    producers: HashMap<&'a str, usize>,
    tensors: HashMap<&'a str, &'a TensorProto>,
    /// The value behind each output of an `Identity`.
    sources: HashMap<&'a str, &'a str>,
}

impl<'a> GraphView<'a> {
    /// Indexes a graph.
    ///
    /// # Errors
    ///
    /// A cycle of `Identity` nodes.
    pub fn new(graph: &'a GraphProto) -> Result<Self, GraphError> {
        let mut producers = HashMap::new();
        let mut tensors: HashMap<&str, &TensorProto> = graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        for (index, node) in graph.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                producers.insert(output.as_str(), index);
            }
            if let ("Constant", Some(output), Some(attribute)) = (
                node.op_type.as_str(),
                node.output.first().filter(|name| !name.is_empty()),
                node.attribute.first(),
            ) && let Some(value) = attribute.t.as_ref()
            {
                tensors.insert(output, value);
            }
        }
        Ok(Self {
            graph,
            inputs: graph
                .input
                .iter()
                .map(|input| input.name.as_str())
                .collect(),
            producers,
            tensors,
            sources: identity_sources(graph)?,
        })
    }

    /// Returns the name behind any `Identity` nodes.
    #[must_use]
    pub fn resolve(&self, name: &'a str) -> &'a str {
        self.sources.get(name).copied().unwrap_or(name)
    }

    /// Returns the index of the node that computes a value, if a node does.
    #[must_use]
    pub fn producer(&self, name: &'a str) -> Option<usize> {
        self.producers.get(self.resolve(name)).copied()
    }

    /// Returns the initializer or the value of the `Constant` node behind a name.
    #[must_use]
    pub fn tensor(&self, name: &'a str) -> Option<&'a TensorProto> {
        self.tensors.get(self.resolve(name)).copied()
    }

    /// Checks that a node, a stored tensor or a graph input defines a value.
    pub(super) fn defined(&self, name: &str) -> Result<(), GraphError> {
        if self.producers.contains_key(name)
            || self.tensors.contains_key(name)
            || self.inputs.contains(name)
        {
            return Ok(());
        }
        Err(GraphError::Invalid(format!("nothing defines `{name}`")))
    }

    /// Returns the node indices in topological order.
    ///
    /// # Errors
    ///
    /// A cycle, or a value that nothing defines.
    pub fn order(&self) -> Result<Vec<usize>, GraphError> {
        #[derive(Clone, Copy, PartialEq)]
        enum VisitState {
            New,
            Open,
            Done,
        }
        let mut states = vec![VisitState::New; self.graph.node.len()];
        let mut order = Vec::with_capacity(states.len());
        // Depth first without recursion, because a graph may be deeper than the call stack. Each
        // entry is a node and the number of its inputs that were visited.
        let mut stack = Vec::new();
        for root in 0..states.len() {
            if states[root] == VisitState::New {
                states[root] = VisitState::Open;
                stack.push((root, 0));
            }
            while let Some((index, next)) = stack.last_mut() {
                let Some(name) = self.graph.node[*index].input.get(*next) else {
                    states[*index] = VisitState::Done;
                    order.push(*index);
                    stack.pop();
                    continue;
                };
                *next += 1;
                if name.is_empty() {
                    continue;
                }
                self.defined(name)?;
                let Some(&source) = self.producers.get(name.as_str()) else {
                    continue;
                };
                match states[source] {
                    VisitState::Done => {}
                    VisitState::Open => return Err(cycle(name)),
                    VisitState::New => {
                        states[source] = VisitState::Open;
                        stack.push((source, 0));
                    }
                }
            }
        }
        Ok(order)
    }
}

/// Maps each output of an `Identity` to the start of its chain, in linear time.
fn identity_sources(graph: &GraphProto) -> Result<HashMap<&str, &str>, GraphError> {
    let next: HashMap<&str, &str> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Identity")
        .filter_map(|node| Some((node.output.first()?.as_str(), node.input.first()?.as_str())))
        .filter(|(output, _)| !output.is_empty())
        .collect();
    let mut sources = HashMap::with_capacity(next.len());
    for &start in next.keys() {
        let mut chain = Vec::new();
        let mut name = start;
        while let Some(&link) = next.get(name) {
            if let Some(&end) = sources.get(name) {
                name = end;
                break;
            }
            chain.push(name);
            if chain.len() > next.len() {
                return Err(cycle(name));
            }
            name = link;
        }
        sources.extend(chain.into_iter().map(|link| (link, name)));
    }
    Ok(sources)
}

fn cycle(name: &str) -> GraphError {
    GraphError::Invalid(format!("`{name}` depends on itself"))
}

/// Maps each value to the nodes that read it. Graph outputs count as read by node `usize::MAX`.
pub(super) fn readers(graph: &GraphProto) -> HashMap<&str, Vec<usize>> {
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            readers.entry(name).or_default().push(index);
        }
    }
    for output in &graph.output {
        readers.entry(&output.name).or_default().push(usize::MAX);
    }
    readers
}
