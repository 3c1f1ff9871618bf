//! What parsing a model would take, told from its protobuf framing before anything is allocated.
//!
//! Two bytes of a file can stand for a node that takes hundreds in memory, so the length of a file
//! does not bound the memory that parsing it takes; a walk over its tags and lengths does. Large
//! data is stepped over, so the walk takes milliseconds.

use super::GraphError;

/// Structure: nodes, names, attributes. By this measure PyTorch's dynamo exporter makes
/// 65 MB of InceptionResNetV2, others 7 MB.
const MAX_STRUCTURE: u64 = 512 << 20;
/// Weights in typed fields, which parsing copies (`raw_data` is shared with the file's buffer).
const MAX_TYPED: u64 = 2 << 30;

// Upper bounds of what one thing takes in memory, bytes, with the containers around it.
const MESSAGE: u64 = 1024;
const FIELD: u64 = 64;
/// No message of the format has higher field numbers; what is unknown is kept in a table.
const LAST_FIELD: u64 = 26;
/// One byte can be a packed int64.
const PACKED_BYTE: u64 = 8;

/// The messages of the format that hold other messages.
#[derive(Clone, Copy)]
enum Kind {
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
    /// Holds numbers and strings only.
    Leaf,
}

/// The kind of message that a field holds, if it holds one.
fn child(kind: Kind, field: u64) -> Option<Kind> {
    Some(match (kind, field) {
        (Kind::Model, 7) | (Kind::Training, 1 | 2) | (Kind::Attribute, 6 | 11) => Kind::Graph,
        (Kind::Model, 20) => Kind::Training,
        (Kind::Model, 25) => Kind::Function,
        (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
        (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
        (Kind::Graph, 11..=13) | (Kind::Function, 12) => Kind::ValueInfo,
        (Kind::Graph, 14) => Kind::Annotation,
        (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
        (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
        (Kind::Node, 10) | (Kind::Devices, 2 | 4) => Kind::Devices,
        (Kind::ValueInfo, 2) | (Kind::Attribute, 14 | 15) | (Kind::WrappedType, 1 | 2) => {
            Kind::Type
        }
        (Kind::Type, 1 | 8) => Kind::TensorType,
        (Kind::Type, 4 | 5 | 9) => Kind::WrappedType,
        (Kind::TensorType, 2) => Kind::Shape,
        (Kind::Model, 8 | 14 | 26)
        | (Kind::Training, 3 | 4)
        | (Kind::Function, 9 | 14)
        | (Kind::Graph | Kind::Tensor, 16)
        | (Kind::Node, 9)
        | (Kind::Tensor, 3 | 13)
        | (Kind::Annotation, 2)
        | (Kind::ValueInfo, 4)
        | (Kind::Shape, 1)
        | (Kind::Devices, 3) => Kind::Leaf,
        _ => return None,
    })
}

/// Refuses bytes whose parsed form would take too much memory.
///
/// # Errors
///
/// [`GraphError::Limit`], or [`GraphError::NotOnnx`] where the framing is broken.
pub(super) fn check(bytes: &[u8]) -> Result<(), GraphError> {
    let mut reader = Reader { bytes, at: 0 };
    let (mut structure, mut typed) = (MESSAGE, 0);
    // Messages that are open, with where they end; a stack of calls could overflow.
    let mut open = vec![(Kind::Model, bytes.len())];
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
                        (Kind::Tensor, 9) => {}
                        (Kind::Tensor, 4 | 10) => typed += length,
                        (Kind::Tensor, 5) => typed += length * PACKED_BYTE / 2,
                        (Kind::Tensor, 7 | 11) => typed += length * PACKED_BYTE,
                        (Kind::Tensor, 1) | (Kind::Attribute, 8) | (Kind::Sparse, 3) => {
                            structure += length * PACKED_BYTE;
                        }
                        (Kind::Devices | Kind::Leaf, _) => structure += length * PACKED_BYTE,
                        _ => structure += length,
                    }
                }
            }
            (_, wire) => return Err(broken(&format!("field of unknown kind {wire}"))),
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

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
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
        Err(broken("a number of more than 64 bits"))
    }

    /// Where something of this length, starting here, stops.
    fn stop(&self, length: u64, end: usize) -> Result<usize, GraphError> {
        usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|&stop| stop <= end)
            .ok_or_else(|| broken(&format!("{length} bytes are promised, fewer are there")))
    }

    fn skip(&mut self, length: u64, end: usize) -> Result<(), GraphError> {
        self.at = self.stop(length, end)?;
        Ok(())
    }
}

fn broken(what: &str) -> GraphError {
    GraphError::NotOnnx(format!("broken protobuf: {what}"))
}
