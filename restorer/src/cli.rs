//! The command line: what can be asked for, and how it is explained.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use teeline_archive::ledger::StateKind;
use teeline_config::TopicPattern;

use crate::plan::Only;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "teeline-restorer",
    version,
    about = "List, describe, verify and restore Teeline archives",
    long_about = "Gives back what teeline-proxy and teeline-segmenter put into an archive: to the same or another Kafka \
                  cluster, whole topics or a window of time, exact bytes, timestamps and headers, committed \
                  transactions only.",
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 done but incomplete \
                  (holes, undecided or unconfirmed records).",
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the backups of an archive
    #[command(
        after_help = "Examples:\n  teeline-restorer list --archive ./teeline-archive\n  \
                            teeline-restorer list --archive s3://backups/kafka --json"
    )]
    List(ArchiveArgs),
    /// Show a backup's topics, partitions, offsets, times, sizes and configuration
    #[command(
        after_help = "Examples:\n  teeline-restorer describe default --archive ./teeline-archive\n  \
                            teeline-restorer describe default --archive s3://backups/kafka --json"
    )]
    Describe(BackupArgs),
    /// Show which offsets of each partition are held, and why the others are not (exit code 3 if one is unexplained)
    #[command(
        long_about = "Shows for each partition which offsets are held and where they came from, how far the log goes, \
                      and for every offset that is missing the reason and what shows it. From the ledger alone, or \
                      with --source checked against the cluster. Exit code 3 if an offset is missing without an \
                      explanation.",
        after_help = "Examples:\n  teeline-restorer coverage default --archive ./teeline-archive\n  \
                            teeline-restorer coverage default --archive ./teeline-archive --topic 'orders*' --json\n  \
                            teeline-restorer coverage default --archive ./teeline-archive --source localhost:9092"
    )]
    Coverage(CoverageArgs),
    /// Show what the cluster was beside its records, at a moment: groups and offsets, topics, ACLs, quotas, users
    #[command(
        long_about = "Shows what the source's cluster was beside its records, at a moment: consumer groups and their \
                      committed offsets, topics with their settings and replicas, ACLs, quotas, and the names of SCRAM \
                      users. Exit code 3 if something was not recorded by then, was not auditable, or cannot be read.",
        after_help = "Examples:\n  teeline-restorer state default --archive ./teeline-archive --kind groups\n  \
                            teeline-restorer state default --archive s3://backups/kafka --at -24h --json"
    )]
    State(StateArgs),
    /// Read every block of a backup and check it: checksums, batches, counts (exit code 3 on findings)
    #[command(
        after_help = "Examples:\n  teeline-restorer verify default --archive ./teeline-archive\n  \
                            teeline-restorer verify default --archive s3://backups/kafka --topic orders --json"
    )]
    Verify(SelectedArgs),
    /// Restore topics of a backup into a Kafka cluster
    #[command(
        long_about = "Restores topics of a backup into a Kafka cluster. Prints a plan first; --dry-run stops there. \
                      Everything selected is checked before the first record is produced. Topics that do not exist \
                      are created with their original configuration and partition count; settings that would delete \
                      or restamp old records are held off while restoring and put back at the end.",
        after_help = "Examples:\n  \
            teeline-restorer restore default --archive ./teeline-archive --target localhost:9092 --dry-run\n  \
            teeline-restorer restore default --archive ./teeline-archive --target localhost:9092 --topic 'orders*'\n  \
            teeline-restorer restore default --archive s3://backups/kafka --target kafka:9092 --topic orders \\\n      \
                --map orders=orders_clone --from-timestamp 2026-11-20T08:00:00Z --to-timestamp -1h\n  \
            teeline-restorer restore --config restore.yaml"
    )]
    Restore(Box<RestoreArgs>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page (troff)
    Man,
}

/// Where the archive lies, and how to answer.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// The archive: a path, file://, s3://bucket/prefix, gs://, az://
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    pub archive: Option<String>,
    /// A YAML configuration whose `storage` says where the archive lies
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer with JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// One backup of an archive.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The backup's id, as `list` shows it
    #[arg(value_name = "ID")]
    pub backup_id: String,
    /// Where the archive lies
    #[command(flatten)]
    pub archive: ArchiveArgs,
}

/// The state of a cluster at a moment.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// The backup
    #[command(flatten)]
    pub backup: BackupArgs,
    /// The moment: RFC 3339, epoch ms, or relative such as -24h; now if not given
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub at: Option<String>,
    /// Only this: groups, topic-configs, acls, quotas or scram-users; may be repeated
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    pub kinds: Vec<StateKind>,
}

/// Some topics of one backup.
#[derive(Debug, Args)]
pub struct SelectedArgs {
    /// The backup
    #[command(flatten)]
    pub backup: BackupArgs,
    /// Which topics
    #[command(flatten)]
    pub topics: TopicArgs,
}

/// What coverage is to be held against.
#[derive(Debug, Args)]
pub struct CoverageArgs {
    /// Backup and topics
    #[command(flatten)]
    pub selected: SelectedArgs,
    /// Check against the cluster that the backup comes from; with --config, its `source` says how to get in
    #[arg(long, value_name = "HOST:PORT")]
    pub source: Option<String>,
    /// Check against the cluster that `source` in the file of --config names
    #[arg(long, requires = "config")]
    pub live: bool,
    /// How long a record may take into the archive: a hole that an audit saw so long ago is due
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub grace: u64,
}

/// Which topics, by the names they have in the archive.
#[derive(Debug, Args, Clone, Default)]
pub struct TopicArgs {
    /// Only topics that match: a name, a glob, or regex:…; may be repeated
    #[arg(long = "topic", value_name = "PATTERN", value_parser = TopicPattern::parse)]
    pub include: Vec<TopicPattern>,
    /// Not the topics that match; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = TopicPattern::parse)]
    pub exclude: Vec<TopicPattern>,
}

/// A restore.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup's id, as `list` shows it
    #[arg(value_name = "ID", required_unless_present = "config")]
    pub backup_id: Option<String>,
    /// Where the archive lies
    #[command(flatten)]
    pub archive: ArchiveArgs,
    /// Bootstrap address of the target cluster; several separated by commas
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "config")]
    pub target: Option<String>,
    /// Which topics
    #[command(flatten)]
    pub topics: TopicArgs,
    /// Restore topic a under the name b; may be repeated
    #[arg(long = "map", value_name = "a=b", value_parser = parse_pair)]
    pub mapping: Vec<(String, String)>,
    /// Restore this incarnation of a topic (see `describe`) instead of its newest; may be repeated
    #[arg(long = "incarnation", value_name = "TOPIC=ID", value_parser = parse_pair)]
    pub incarnations: Vec<(String, String)>,
    /// Only records from this time on: RFC 3339, epoch ms, or relative such as -24h
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from_timestamp: Option<String>,
    /// Only records before this time: RFC 3339, epoch ms, or relative such as -1h
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub to_timestamp: Option<String>,
    /// Print the plan and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Allow the cluster that the backup came from as the target
    #[arg(long)]
    pub allow_source: bool,
    /// Allow target topics that hold records already; what is restored is appended
    #[arg(long)]
    pub allow_nonempty: bool,
    /// Restore doubtful unconfirmed records too (quarantined: nothing shows that the broker took any of their session)
    #[arg(long)]
    pub include_quarantined: bool,
    /// Restore only one class of records that are no part of the log, into topics of other names (--map)
    #[arg(long, value_name = "CLASS", value_enum)]
    pub only: Option<Only>,
    /// Start producing without having checked everything first; each block is still checked as it is read
    #[arg(long)]
    pub no_validate_checksum: bool,
    /// Leave retention off on the restored topics (retention.ms=-1, retention.bytes=-1)
    #[arg(long)]
    pub keep_retention_off: bool,
    /// Partitions restored at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: Option<u16>,
    /// Give a batch up, and the restore with it, when the target has not taken it after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub delivery_timeout: Option<u64>,
    /// No progress bar
    #[arg(long, short)]
    pub quiet: bool,
}

fn parse_kind(text: &str) -> Result<StateKind, String> {
    let known = StateKind::ALL.into_iter().find(|kind| kind.to_string() == text);
    known.ok_or_else(|| {
        let words: Vec<String> = StateKind::ALL.iter().map(StateKind::to_string).collect();
        format!("expected one of {}", words.join(", "))
    })
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err("write it as a=b, with a name on both sides".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_restore_takes_relative_times_repeated_topics_and_maps() {
        let cli = Cli::try_parse_from([
            "teeline-restorer",
            "restore",
            "default",
            "--archive",
            "./a",
            "--target",
            "h:1",
            "--topic",
            "a*",
            "--topic",
            "b",
            "--exclude",
            "ab",
            "--map",
            "a=b",
            "--from-timestamp",
            "-24h",
            "--to-timestamp",
            "-1h",
            "--dry-run",
            "--json",
        ])
        .unwrap();
        let Command::Restore(args) = cli.command else {
            panic!("not a restore")
        };
        assert_eq!(args.topics.include.len(), 2);
        assert_eq!(args.mapping, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(args.from_timestamp.as_deref(), Some("-24h"));
        assert!(args.dry_run && args.archive.json);
    }

    #[test]
    fn a_restore_without_archive_or_target_needs_a_file() {
        assert!(Cli::try_parse_from(["teeline-restorer", "restore", "default"]).is_err());
        assert!(Cli::try_parse_from(["teeline-restorer", "restore", "--config", "r.yaml"]).is_ok());
        assert!(Cli::try_parse_from(["teeline-restorer", "list"]).is_err());
        let bad = ["teeline-restorer", "restore", "--config", "r.yaml", "--map", "a="];
        assert!(Cli::try_parse_from(bad).is_err());
    }
}
