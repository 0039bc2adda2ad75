//! Zstandard frames.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::{CodecError, Compression};

/// zstd's own default, and Kafka's.
const LEVEL: i32 = 3;
/// Output grows in steps from here, so that small batches stay cheap.
const OUTPUT_BYTES_FIRST: usize = 16 * 1024;

thread_local! {
    // A decoding context costs far more to set up than a typical batch to decode.
    static DECODER: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

pub(super) fn compress(bytes: &[u8]) -> Result<Bytes, CodecError> {
    zstd::bulk::compress(bytes, LEVEL)
        .map(Bytes::from)
        .map_err(|error| CodecError::Compress {
            codec: Compression::Zstd,
            reason: error.to_string(),
        })
}

pub(super) fn decompress(bytes: &[u8], limit: usize) -> Result<Bytes, CodecError> {
    let mut output = Vec::new();
    let length = decompress_over(bytes, limit, &mut output)?;
    output.truncate(length);
    Ok(output.into())
}

/// The same over whatever `output` holds, which stays behind the content: how long that is. What is there already need
/// not be made ready again.
pub(super) fn decompress_over(bytes: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<usize, CodecError> {
    DECODER.with_borrow_mut(|slot| {
        let decoder = match slot {
            Some(decoder) => decoder,
            None => slot.insert(Decoder::new().map_err(damaged)?),
        };
        // Also after a failure, which may have left half a frame inside.
        decoder.reinit().map_err(damaged)?;
        run(decoder, bytes, limit, output)
    })
}

fn run(
    decoder: &mut Decoder<'static>,
    bytes: &[u8],
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let mut input = InBuffer::around(bytes);
    // One byte beyond the limit tells "exactly full" from "too much".
    let output_bytes_max = limit.saturating_add(1);
    let first = OUTPUT_BYTES_FIRST
        .max(bytes.len().saturating_mul(3))
        .min(output_bytes_max);
    output.truncate(output_bytes_max);
    if output.len() < first {
        output.resize(first, 0);
    }
    let mut filled = 0;
    loop {
        let mut target = OutBuffer::around_pos(&mut output[..], filled);
        let hint = decoder.run(&mut input, &mut target).map_err(damaged)?;
        filled = target.pos();
        let input_used_up = input.pos() == bytes.len();
        if filled > limit {
            return Err(CodecError::TooLarge {
                codec: Compression::Zstd,
                limit,
            });
        }
        if hint == 0 && input_used_up {
            // The last frame is complete and all of it is out.
            return Ok(filled);
        }
        if filled < output.len() {
            if input_used_up {
                return Err(CodecError::Damaged {
                    codec: Compression::Zstd,
                    reason: "the frame is cut short".to_owned(),
                });
            }
            continue;
        }
        let larger = output.len().saturating_mul(2).min(output_bytes_max);
        output.resize(larger, 0);
    }
}

fn damaged(error: std::io::Error) -> CodecError {
    CodecError::Damaged {
        codec: Compression::Zstd,
        reason: error.to_string(),
    }
}
