//! Protobuf codec with a limit on the number of fields.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::status::status;
use crate::ServeError;

/// Maximum number of top-level fields of a message, counting repeated fields individually. An empty
/// field takes two bytes in the message but about a hundred in memory.
const MAX_FIELDS: usize = 1000;
/// Larger messages, in bytes, are decoded outside of the async executor.
const LARGE: usize = 64 << 10;

/// Decodes a message.
///
/// # Errors
///
/// [`ServeError::Invalid`] if it is malformed or has too many fields.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, ServeError> {
    let malformed =
        |error: DecodeError| ServeError::Invalid(format!("the message is malformed: {error}"));
    let mut remaining = bytes.clone();
    let mut fields = 0;
    while remaining.has_remaining() {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(ServeError::Invalid(format!(
                "the message has more than {MAX_FIELDS} fields; send one input, and name each \
                 output once"
            )));
        }
        let (tag, kind) = decode_key(&mut remaining).map_err(malformed)?;
        skip_field(kind, tag, &mut remaining, DecodeContext::default()).map_err(malformed)?;
    }
    M::decode(bytes).map_err(malformed)
}

/// Codec that encodes messages of type `E` and decodes messages of type `D` with [`decode`].
pub(super) struct BoundedCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for BoundedCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for BoundedCodec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = BoundedDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

pub(super) struct BoundedDecoder<D>(PhantomData<D>);

impl<D: Message + Default> Decoder for BoundedDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let decoded = if bytes.len() > LARGE {
            tokio::task::block_in_place(|| decode(bytes))
        } else {
            decode(bytes)
        };
        decoded.map(Some).map_err(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::ModelInferRequest;

    fn read(bytes: &[u8]) -> Result<ModelInferRequest, String> {
        decode(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_fields_are_skipped_and_malformed_messages_refused() {
        let named = [0x0a, 1, b'm'];
        assert_eq!(read(&named).unwrap().model_name, "m");
        // Field 100, of four bytes.
        let unknown = [0xa5, 0x06, 1, 2, 3, 4];
        assert_eq!(
            read(&[&unknown[..], &named].concat()).unwrap().model_name,
            "m"
        );
        assert_eq!(read(b"").unwrap(), ModelInferRequest::default());
        // Truncated, not UTF-8, wrong wire type, unterminated groups, field number zero.
        for bad in [
            &named[..2],
            &[0x0a, 1, 0xff],
            &[0x08, 1],
            &[0x0b; 500],
            &[0, 0],
        ] {
            assert!(read(bad).unwrap_err().contains("malformed"), "{bad:?}");
        }
    }

    #[test]
    fn messages_with_too_many_empty_fields_are_refused() {
        // Inputs, outputs, raw contents.
        for field in [0x2a, 0x32, 0x3a] {
            assert!(read(&[field, 0].repeat(1000)).is_ok());
            let error = read(&[field, 0].repeat(1001)).unwrap_err();
            assert!(error.contains("1000 fields"), "{error}");
        }
    }
}
