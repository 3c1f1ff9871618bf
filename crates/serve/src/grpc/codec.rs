//! From bytes to messages.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::status::status;
use crate::ServeError;

/// Most fields of a message, those that it repeats counted one by one. An empty one takes two bytes
/// on the way and a hundred in memory.
const MAX_FIELDS: usize = 1000;
/// Messages of more bytes are decoded where no connection waits for it.
const LARGE: usize = 64 << 10;

/// Reads a message.
///
/// # Errors
///
/// [`ServeError::Invalid`] if it is none, or has too many fields.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, ServeError> {
    let no_message = |error: DecodeError| {
        ServeError::Invalid(format!("this is no message of the call: {error}"))
    };
    let mut rest = bytes.clone();
    let mut fields = 0;
    while rest.has_remaining() {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(ServeError::Invalid(format!(
                "the message has more than {MAX_FIELDS} fields; send one input, and each output's \
                 name once"
            )));
        }
        let (tag, kind) = decode_key(&mut rest).map_err(no_message)?;
        skip_field(kind, tag, &mut rest, DecodeContext::default()).map_err(no_message)?;
    }
    M::decode(bytes).map_err(no_message)
}

/// How messages of the type `D` are read, and those of the type `E` written.
pub(super) struct Bounded<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for Bounded<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for Bounded<E, D>
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
    fn unknown_fields_are_read_over_and_what_is_no_message_is_refused() {
        let named = [0x0a, 1, b'm'];
        assert_eq!(read(&named).unwrap().model_name, "m");
        // Field 100, of four bytes.
        let unknown = [0xa5, 0x06, 1, 2, 3, 4];
        assert_eq!(
            read(&[&unknown[..], &named].concat()).unwrap().model_name,
            "m"
        );
        assert_eq!(read(b"").unwrap(), ModelInferRequest::default());
        // Cut off, not UTF-8, of another type, groups without an end, no field's number.
        for bad in [
            &named[..2],
            &[0x0a, 1, 0xff],
            &[0x08, 1],
            &[0x0b; 500],
            &[0, 0],
        ] {
            assert!(read(bad).unwrap_err().contains("no message"), "{bad:?}");
        }
    }

    #[test]
    fn a_message_of_nothing_but_empty_fields_is_refused() {
        // Inputs, outputs, raw contents.
        for field in [0x2a, 0x32, 0x3a] {
            assert!(read(&[field, 0].repeat(1000)).is_ok());
            let error = read(&[field, 0].repeat(1001)).unwrap_err();
            assert!(error.contains("1000 fields"), "{error}");
        }
    }
}
