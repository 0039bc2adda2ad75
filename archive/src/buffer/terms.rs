//! Which leader epochs are proved, and where they begin: what the leaders themselves said.

use crate::fields::{FieldError, FieldReader, put_count, put_name};
use crate::ids::Lsn;
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// Leader epochs as the leaders told them, each asked under the very epoch: a broker that answers leads the partition
/// under that epoch at that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderTerms {
    /// The last LSN assigned when the questions were sent: the answers are younger than every frame up to it.
    pub requested_after: Lsn,
    /// When the answers were in, in epoch milliseconds.
    pub at_ms: i64,
    /// Cluster id.
    pub cluster_id: String,
    /// The topics asked for.
    pub topics: Vec<TermsTopic>,
}

/// One topic's partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermsTopic {
    /// Name.
    pub name: String,
    /// Topic id; nil when the cluster has none.
    pub id: Uuid,
    /// Its partitions, as far as their leaders answered.
    pub terms: Vec<LeaderTerm>,
}

/// Under which epoch one partition is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderTerm {
    /// Partition.
    pub partition: i32,
    /// Leader epoch.
    pub leader_epoch: i32,
    /// Every batch at or behind this offset is of this epoch or of a later one; -1 when the leader cannot tell.
    pub start_offset: i64,
}

const TOPIC_BYTES_MIN: usize = 2 + 16 + 4;
const TERM_BYTES: usize = 4 + 4 + 8;

impl LeaderTerms {
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        out.put_u64_le(self.requested_after.0);
        out.put_i64_le(self.at_ms);
        put_name(out, "cluster id", &self.cluster_id)?;
        put_count(out, "topic count", self.topics.len())?;
        for topic in &self.topics {
            put_name(out, "topic name", &topic.name)?;
            out.put_slice(topic.id.as_bytes());
            put_count(out, "partition count", topic.terms.len())?;
            for term in &topic.terms {
                out.put_i32_le(term.partition);
                out.put_i32_le(term.leader_epoch);
                out.put_i64_le(term.start_offset);
            }
        }
        Ok(())
    }

    pub(super) fn decode(fields: &mut FieldReader<'_>) -> Result<LeaderTerms, FieldError> {
        let requested_after = Lsn(fields.u64("requested after")?);
        let at_ms = fields.i64("time")?;
        let cluster_id = fields.name("cluster id")?;
        let topics = (0..fields.count(TOPIC_BYTES_MIN, "topic count")?)
            .map(|_| TermsTopic::decode(fields))
            .collect::<Result<_, _>>()?;
        Ok(LeaderTerms {
            requested_after,
            at_ms,
            cluster_id,
            topics,
        })
    }
}

impl TermsTopic {
    fn decode(fields: &mut FieldReader<'_>) -> Result<TermsTopic, FieldError> {
        let name = fields.name("topic name")?;
        let id = fields.uuid("topic id")?;
        let terms = (0..fields.count(TERM_BYTES, "partition count")?)
            .map(|_| {
                Ok(LeaderTerm {
                    partition: fields.i32("partition")?,
                    leader_epoch: fields.i32("leader epoch")?,
                    start_offset: fields.i64("start offset")?,
                })
            })
            .collect::<Result<_, FieldError>>()?;
        Ok(TermsTopic { name, id, terms })
    }
}
