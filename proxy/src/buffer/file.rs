//! One append-only buffer file: create, gathered write, sync.

use std::io::IoSlice;

use bytes::BytesMut;
use teeline_archive::buffer::{FileHeader, Frame, encode_frame, encode_intent_prefix};
use teeline_archive::ids::{Lsn, SessionId};
use teeline_runtime::fs::{DurableFile, FsError};
use teeline_segmenter::buffer::Directory;

use super::queue::Item;

/// The file that is being appended to.
pub(super) struct ActiveFile {
    file: DurableFile,
    pub(super) number: u64,
    pub(super) first_lsn: Lsn,
    pub(super) bytes: u64,
}

impl ActiveFile {
    /// Creates the file and writes its header. The name is durable then; the header is after [`ActiveFile::sync`].
    pub(super) fn create(directory: &Directory, header: &FileHeader) -> Result<Self, FsError> {
        let path = directory.file_path(header.file_number);
        let mut file = DurableFile::create_new(&path)?;
        let encoded = header.encode();
        if let Err(error) = file.write_all(&encoded) {
            // Best effort: on a full disk one more is tried every second.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(ActiveFile {
            file,
            number: header.file_number,
            first_lsn: header.first_lsn,
            bytes: encoded.len() as u64,
        })
    }

    /// Appends encoded frames in one gathered write.
    pub(super) fn write(&mut self, gathered: &Gathered) -> Result<(), FsError> {
        self.file.write_all_vectored(&mut gathered.slices())?;
        self.bytes = self.bytes.saturating_add(gathered.bytes);
        Ok(())
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> Result<(), FsError> {
        self.file.sync_data()
    }
}

/// Frames encoded for one write. Record bytes are referred to, not copied.
pub(super) struct Gathered<'a> {
    prefixes: BytesMut,
    /// Per frame: the end of its prefix in `prefixes`, and its record bytes.
    parts: Vec<(usize, &'a [u8])>,
    pub(super) bytes: u64,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(mut scratch: BytesMut) -> Self {
        scratch.clear();
        Gathered {
            prefixes: scratch,
            parts: Vec::new(),
            bytes: 0,
        }
    }

    /// Encodes one frame behind the others.
    pub(super) fn push(&mut self, item: &'a Item, session: SessionId) {
        let before = self.prefixes.len();
        let (encoded, records): (_, &[u8]) = match &item.frame {
            Frame::Intent(intent) => (
                encode_intent_prefix(intent, session, item.lsn, &mut self.prefixes),
                &intent.records,
            ),
            frame => (encode_frame(frame, session, item.lsn, &mut self.prefixes), &[]),
        };
        let records = match encoded {
            Ok(()) => records,
            Err(error) => {
                self.push_placeholder(item, session, &error);
                &[]
            }
        };
        let end = self.prefixes.len();
        self.parts.push((end, records));
        self.bytes += (end - before + records.len()) as u64;
    }

    /// A frame that the format cannot hold. Its number must not be missing, so an empty frame of no known kind takes
    /// its place; an outcome that names it finds no intent and the batch is settled by Fetch.
    fn push_placeholder(&mut self, item: &Item, session: SessionId, error: &dyn std::error::Error) {
        tracing::error!(lsn = item.lsn.0, %error, "a frame does not fit the buffer's format and is not captured");
        let placeholder = Frame::Unknown {
            kind: u16::MAX,
            payload: bytes::Bytes::new(),
        };
        encode_frame(&placeholder, session, item.lsn, &mut self.prefixes)
            .expect("an empty payload is within every limit");
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The buffer for the prefixes, to be used again.
    pub(super) fn into_scratch(self) -> BytesMut {
        self.prefixes
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.parts.len() * 2);
        let mut rest: &[u8] = &self.prefixes;
        let mut at = 0;
        for (end, records) in &self.parts {
            // Neighbouring prefixes could be one slice; intents dominate, so they seldom are neighbours.
            let (prefix, tail) = rest.split_at(end - at);
            slices.push(IoSlice::new(prefix));
            if !records.is_empty() {
                slices.push(IoSlice::new(records));
            }
            (rest, at) = (tail, *end);
        }
        slices
    }
}
