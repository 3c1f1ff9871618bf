//! Bounds the memory that parsing a model needs, from its protobuf framing alone.
//!
//! A node of two bytes in the file takes hundreds of bytes in memory, so the length of a file does
//! not bound the memory. This walk over tags and lengths does. It skips large data, so it takes
//! milliseconds.

use super::GraphError;

/// Nodes, names and attributes, bytes. InceptionResNetV2 measures 65 MB from PyTorch's dynamo
/// exporter and 7 MB from others.
const MAX_STRUCTURE: u64 = 512 << 20;
/// Weights in typed fields, bytes. Parsing copies them; `raw_data` shares the file's buffer.
const MAX_TYPED: u64 = 2 << 30;

// Upper bounds of one item's size in memory, bytes, including its containers.
const MESSAGE: u64 = 1024;
const FIELD: u64 = 64;
/// The highest field number of the format; fields above are kept in a table of unknown fields.
const LAST_FIELD: u64 = 26;
/// A packed int64 can take one byte in the file.
const PACKED_BYTE: u64 = 8;

/// Message types, as far as they contain other messages.
#[derive(Clone, Copy)]
enum BudgetKind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
    Annotation,
    ValueInfo,
    Type,
    TensorType,
    WrappedType,
    Shape,
    Devices,
    /// Contains numbers and strings only.
    Leaf,
}

/// Returns the message type of a field, or `None` for numbers, strings and bytes.
fn child(kind: BudgetKind, field: u64) -> Option<BudgetKind> {
    Some(match (kind, field) {
        (BudgetKind::Model, 7)
        | (BudgetKind::Training, 1 | 2)
        | (BudgetKind::Attribute, 6 | 11) => BudgetKind::Graph,
        (BudgetKind::Model, 20) => BudgetKind::Training,
        (BudgetKind::Model, 25) => BudgetKind::Function,
        (BudgetKind::Graph, 1) | (BudgetKind::Function, 7) => BudgetKind::Node,
        (BudgetKind::Graph, 5) | (BudgetKind::Attribute, 5 | 10) | (BudgetKind::Sparse, 1 | 2) => {
            BudgetKind::Tensor
        }
        (BudgetKind::Graph, 11..=13) | (BudgetKind::Function, 12) => BudgetKind::ValueInfo,
        (BudgetKind::Graph, 14) => BudgetKind::Annotation,
        (BudgetKind::Graph, 15) | (BudgetKind::Attribute, 22 | 23) => BudgetKind::Sparse,
        (BudgetKind::Node, 5) | (BudgetKind::Function, 11) => BudgetKind::Attribute,
        (BudgetKind::Node, 10) | (BudgetKind::Devices, 2 | 4) => BudgetKind::Devices,
        (BudgetKind::ValueInfo, 2)
        | (BudgetKind::Attribute, 14 | 15)
        | (BudgetKind::WrappedType, 1 | 2) => BudgetKind::Type,
        (BudgetKind::Type, 1 | 8) => BudgetKind::TensorType,
        (BudgetKind::Type, 4 | 5 | 9) => BudgetKind::WrappedType,
        (BudgetKind::TensorType, 2) => BudgetKind::Shape,
        (BudgetKind::Model, 8 | 14 | 26)
        | (BudgetKind::Training, 3 | 4)
        | (BudgetKind::Function, 9 | 14)
        | (BudgetKind::Graph | BudgetKind::Tensor, 16)
        | (BudgetKind::Node, 9)
        | (BudgetKind::Tensor, 3 | 13)
        | (BudgetKind::Annotation, 2)
        | (BudgetKind::ValueInfo, 4)
        | (BudgetKind::Shape, 1)
        | (BudgetKind::Devices, 3) => BudgetKind::Leaf,
        _ => return None,
    })
}

/// Checks that the parsed form of `bytes` fits the limits.
///
/// # Errors
///
/// [`GraphError::Limit`], or [`GraphError::NotOnnx`] for invalid framing.
pub(super) fn check(bytes: &[u8]) -> Result<(), GraphError> {
    let mut reader = FramingReader { bytes, at: 0 };
    let (mut structure, mut typed) = (MESSAGE, 0);
    // Open messages and their ends. Recursion could overflow the stack.
    let mut open = vec![(BudgetKind::Model, bytes.len())];
    while let Some(&(kind, end)) = open.last() {
        if reader.at == end {
            open.pop();
            continue;
        }
        let tag = reader.varint(end)?;
        structure += if tag >> 3 > LAST_FIELD {
            MESSAGE
        } else {
            FIELD
        };
        match (tag >> 3, tag & 7) {
            (_, 0) => {
                reader.varint(end)?;
            }
            (_, 1) => reader.skip(8, end)?,
            (_, 5) => reader.skip(4, end)?,
            (field, 2) => {
                let length = reader.varint(end)?;
                if let Some(kind) = child(kind, field) {
                    structure += MESSAGE;
                    let stop = reader.stop(length, end)?;
                    open.push((kind, stop));
                } else {
                    reader.skip(length, end)?;
                    match (kind, field) {
                        (BudgetKind::Tensor, 9) => {}
                        (BudgetKind::Tensor, 4 | 10) => typed += length,
                        (BudgetKind::Tensor, 5) => typed += length * PACKED_BYTE / 2,
                        (BudgetKind::Tensor, 7 | 11) => typed += length * PACKED_BYTE,
                        (BudgetKind::Tensor, 1)
                        | (BudgetKind::Attribute, 8)
                        | (BudgetKind::Sparse, 3)
                        | (BudgetKind::Devices | BudgetKind::Leaf, _) => {
                            structure += length * PACKED_BYTE;
                        }
                        _ => structure += length,
                    }
                }
            }
            (_, wire) => return Err(broken(&format!("unknown wire type {wire}"))),
        }
        for (what, found, limit) in [
            ("bytes of structure", structure, MAX_STRUCTURE),
            ("bytes of typed weights", typed, MAX_TYPED),
        ] {
            if found > limit {
                return Err(GraphError::Limit { what, found, limit });
            }
        }
    }
    Ok(())
}

struct FramingReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl FramingReader<'_> {
    fn varint(&mut self, end: usize) -> Result<u64, GraphError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            if self.at == end {
                return Err(broken("it ends in the middle of a number"));
            }
            let byte = self.bytes[self.at];
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(broken("a number has more than 64 bits"))
    }

    /// Returns the end of a field of `length` bytes that starts here.
    fn stop(&self, length: u64, end: usize) -> Result<usize, GraphError> {
        usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|&stop| stop <= end)
            .ok_or_else(|| broken(&format!("a field of {length} bytes is truncated")))
    }

    fn skip(&mut self, length: u64, end: usize) -> Result<(), GraphError> {
        self.at = self.stop(length, end)?;
        Ok(())
    }
}

fn broken(what: &str) -> GraphError {
    GraphError::NotOnnx(format!("invalid protobuf: {what}"))
}
