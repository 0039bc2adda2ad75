//! From arguments and configuration to what is to be done.

use std::collections::BTreeMap;
use std::time::Duration;

use teeline_config::{
    Config, ConfigErrors, HostPort, KafkaEndpoint, Problem, Program, Restore, Storage, TopicFilter, When,
};

use crate::cli::{ArchiveArgs, RestoreArgs, TopicArgs};
use crate::error::RestorerError;
use crate::plan::Request;
use crate::target::Permissions;
use crate::window::Window;
use crate::work::Pace;

/// Everything that a restore needs to know.
#[derive(Debug, Clone)]
pub struct RestoreJob {
    /// Where the archive lies.
    pub storage: Storage,
    /// The backup.
    pub backup_id: String,
    /// The cluster to restore into.
    pub target: KafkaEndpoint,
    /// What to restore.
    pub request: Request,
    /// What the user allowed.
    pub allowed: Permissions,
    /// Whether to stop after the plan.
    pub dry_run: bool,
    /// Whether to check everything before the first record.
    pub validate_checksum: bool,
    /// Whether to leave retention off afterwards.
    pub keep_retention_off: bool,
    /// How to work.
    pub pace: Pace,
}

/// The archive that the arguments name, by `--archive` or by the file's `storage`; the flag wins.
pub fn storage(args: &ArchiveArgs) -> Result<Storage, RestorerError> {
    if let Some(url) = &args.archive {
        return Storage::from_url(url).map_err(|problem| ConfigErrors::one(COMMAND_LINE, problem).into());
    }
    let config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    config
        .storage
        .ok_or_else(|| missing("storage", "name the archive there, or with --archive"))
}

/// Which topics the arguments name.
pub fn topics(args: &TopicArgs) -> TopicFilter {
    TopicFilter::new(args.include.clone(), args.exclude.clone())
}

/// The restore that the arguments describe. Flags win over the file, setting by setting.
pub fn restore(args: &RestoreArgs, now_ms: i64) -> Result<RestoreJob, RestorerError> {
    let config = match &args.archive.config {
        Some(path) if args.target.is_none() || args.archive.archive.is_none() => {
            // What flags give need not be in the file, so the file alone is not held to be complete.
            if args.target.is_none() && args.archive.archive.is_none() && args.backup_id.is_none() {
                Config::load_for(path, Program::Restorer)?
            } else {
                Config::load(path)?
            }
        }
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    let storage = match &args.archive.archive {
        Some(_) => storage(&args.archive)?,
        None => config
            .storage
            .ok_or_else(|| missing("storage", "name the archive there, or with --archive"))?,
    };
    let target = match &args.target {
        Some(text) => endpoint(text)?,
        None => config
            .target
            .ok_or_else(|| missing("target", "name the cluster there, or with --target"))?,
    };
    let backup_id = args.backup_id.clone().or(config.backup_id);
    let backup_id =
        backup_id.ok_or_else(|| missing("backup_id", "name the backup there, or on the command line"))?;
    let settings = config.restore;
    let default = Pace::default();
    Ok(RestoreJob {
        storage,
        backup_id,
        target,
        request: request(args, &settings, now_ms)?,
        allowed: Permissions {
            source: args.allow_source || settings.allow_source,
            nonempty: args.allow_nonempty || settings.allow_nonempty,
            create: settings.create_topics,
        },
        dry_run: args.dry_run || settings.dry_run,
        validate_checksum: settings.validate_checksum && !args.no_validate_checksum,
        keep_retention_off: args.keep_retention_off,
        pace: Pace {
            parallel: args.parallel.unwrap_or(default.parallel),
            delivery_timeout: args
                .delivery_timeout
                .map_or(default.delivery_timeout, Duration::from_secs),
        },
    })
}

fn request(args: &RestoreArgs, settings: &Restore, now_ms: i64) -> Result<Request, RestorerError> {
    let mut topics = settings.topics.clone();
    if !args.topics.include.is_empty() {
        topics.include.clone_from(&args.topics.include);
    }
    topics.exclude.extend(args.topics.exclude.iter().cloned());
    let mut mapping = settings.topic_mapping.clone();
    mapping.extend(pairs("--map", &args.mapping)?);
    Ok(Request {
        topics,
        mapping,
        incarnations: pairs("--incarnation", &args.incarnations)?,
        window: Window {
            from_ms: moment(
                "--from-timestamp",
                args.from_timestamp.as_deref(),
                settings.time_window_start,
                now_ms,
            )?,
            to_ms: moment(
                "--to-timestamp",
                args.to_timestamp.as_deref(),
                settings.time_window_end,
                now_ms,
            )?,
        },
        include_quarantined: args.include_quarantined || settings.include_quarantined,
    })
}

fn pairs(flag: &str, given: &[(String, String)]) -> Result<BTreeMap<String, String>, RestorerError> {
    let mut pairs = BTreeMap::new();
    for (left, right) in given {
        if pairs
            .insert(left.clone(), right.clone())
            .is_some_and(|before| before != *right)
        {
            return Err(RestorerError::Usage(format!(
                "{flag} says two different things about {left}"
            )));
        }
    }
    Ok(pairs)
}

fn moment(
    flag: &str,
    given: Option<&str>,
    from_file: Option<When>,
    now_ms: i64,
) -> Result<Option<i64>, RestorerError> {
    match given {
        None => Ok(from_file.map(|when| when.resolve(now_ms))),
        Some(text) => match When::parse(text) {
            Ok(when) => Ok(Some(when.resolve(now_ms))),
            Err(error) => Err(ConfigErrors::one(
                COMMAND_LINE,
                Problem {
                    key: flag.to_owned(),
                    value: Some(text.to_owned()),
                    message: error.to_string(),
                    hint: "write it as 2026-11-20T08:00:00Z, as epoch milliseconds, or as -24h".to_owned(),
                },
            )
            .into()),
        },
    }
}

/// The endpoint of a `--target`: one address, or several separated by commas.
fn endpoint(text: &str) -> Result<KafkaEndpoint, RestorerError> {
    let mut servers = Vec::new();
    for part in text.split(',') {
        let server: HostPort = part.parse().map_err(|error| {
            let problem = Problem {
                key: "--target".to_owned(),
                value: Some(part.to_owned()),
                message: format!("{error}"),
                hint: "write it as host:port".to_owned(),
            };
            ConfigErrors::one(COMMAND_LINE, problem)
        })?;
        servers.push(server);
    }
    Ok(KafkaEndpoint::plaintext(servers))
}

const COMMAND_LINE: &str = "command line";

fn missing(key: &str, hint: &str) -> RestorerError {
    let problem = Problem {
        key: key.to_owned(),
        value: None,
        message: "is missing".to_owned(),
        hint: hint.to_owned(),
    };
    ConfigErrors::one(COMMAND_LINE, problem).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(flags: &[&str]) -> Result<RestoreJob, RestorerError> {
        let base = [
            "teeline-restorer",
            "restore",
            "default",
            "--archive",
            "./archive",
            "--target",
            "a:1,b:2",
        ];
        let cli = Cli::try_parse_from(base.iter().chain(flags)).unwrap();
        let Command::Restore(args) = cli.command else {
            panic!("not a restore")
        };
        restore(&args, 1_000_000_000)
    }

    #[test]
    fn flags_become_a_job() {
        let job = parse(&[
            "--map",
            "a=b",
            "--from-timestamp",
            "-1h",
            "--to-timestamp",
            "999999999",
        ])
        .unwrap();
        assert_eq!(job.backup_id, "default");
        assert_eq!(job.target.bootstrap_servers.len(), 2);
        assert_eq!(job.request.mapping.get("a").map(String::as_str), Some("b"));
        assert_eq!(
            job.request.window,
            Window {
                from_ms: Some(996_400_000),
                to_ms: Some(999_999_999)
            }
        );
        assert!(job.validate_checksum && !job.dry_run && job.allowed.create && !job.allowed.source);
    }

    #[test]
    fn what_cannot_be_read_is_wrong_usage_and_names_the_flag() {
        for (flags, name) in [
            (["--from-timestamp", "yesterday"], "--from-timestamp"),
            (["--target", "nowhere"], "--target"),
        ] {
            let base = ["teeline-restorer", "restore", "x", "--archive", "./a"];
            let target: &[&str] = if name == "--target" {
                &[]
            } else {
                &["--target", "h:1"]
            };
            let cli = Cli::try_parse_from(base.iter().chain(target).chain(&flags)).unwrap();
            let Command::Restore(args) = cli.command else {
                panic!("not a restore")
            };
            let error = restore(&args, 0).unwrap_err();
            assert_eq!(error.exit_code(), teeline_runtime::ExitCode::Usage);
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(parse(&["--map", "a=b", "--map", "a=c"]).is_err());
    }
}
