//! From arguments and configuration to what is to be done.

use std::collections::BTreeMap;
use std::time::Duration;

use teeline_config::{
    Config, ConfigErrors, HostPort, KafkaEndpoint, Problem, Program, Restore, Storage, TopicFilter, When,
};

use crate::cli::{ArchiveArgs, CoverageArgs, RestoreArgs, TopicArgs};
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

/// The configuration file that the arguments name, or the defaults.
pub fn config(args: &ArchiveArgs) -> Result<Config, RestorerError> {
    match &args.config {
        Some(path) => Ok(Config::load(path)?),
        None => Ok(Config::default()),
    }
}

/// The archive that the arguments name, by `--archive` or by the file's `storage`; the flag wins.
pub fn storage(args: &ArchiveArgs, config: &Config) -> Result<Storage, RestorerError> {
    if let Some(url) = &args.archive {
        return Storage::from_url(url).map_err(|problem| ConfigErrors::one(COMMAND_LINE, problem).into());
    }
    config
        .storage
        .clone()
        .ok_or_else(|| missing("storage", "name the archive there, or with --archive"))
}

/// Which topics the arguments name.
pub fn topics(args: &TopicArgs) -> TopicFilter {
    TopicFilter::new(args.include.clone(), args.exclude.clone())
}

/// The cluster to hold coverage against, if one is named. An address on the command line takes its credentials from the
/// file's `source`.
pub fn source(args: &CoverageArgs, config: &Config) -> Result<Option<KafkaEndpoint>, RestorerError> {
    match (&args.source, &config.source) {
        (None, None) if args.live => Err(missing("source", "name the cluster there, or with --source")),
        (None, source) => Ok(source.clone().filter(|_| args.live)),
        (Some(text), None) => endpoint("--source", text).map(Some),
        (Some(text), Some(source)) => Ok(Some(KafkaEndpoint {
            bootstrap_servers: endpoint("--source", text)?.bootstrap_servers,
            ..source.clone()
        })),
    }
}

/// The restore that arguments and file describe. Flags win over the file, setting by setting.
pub fn restore(args: &RestoreArgs, mut config: Config, now_ms: i64) -> Result<RestoreJob, RestorerError> {
    if args.archive.archive.is_some() {
        config.storage = Some(storage(&args.archive, &config)?);
    }
    if let Some(text) = &args.target {
        config.target = Some(endpoint("--target", text)?);
    }
    config.backup_id = args.backup_id.clone().or(config.backup_id);
    let problems = config.problems_for(Program::Restorer);
    if !problems.is_empty() {
        let path = args
            .archive
            .config
            .as_ref()
            .map(|path| path.display().to_string());
        let origin = path.unwrap_or_else(|| COMMAND_LINE.to_owned());
        return Err(ConfigErrors { origin, problems }.into());
    }
    let storage = config
        .storage
        .ok_or_else(|| missing("storage", "name the archive"))?;
    let target = config
        .target
        .ok_or_else(|| missing("target", "name the cluster"))?;
    let backup_id = config
        .backup_id
        .ok_or_else(|| missing("backup_id", "name the backup"))?;
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
        only: args.only,
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

/// The moment that a flag or a setting names.
pub(crate) fn moment(
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

/// The endpoint that a flag names: one address, or several separated by commas.
fn endpoint(flag: &str, text: &str) -> Result<KafkaEndpoint, RestorerError> {
    let mut servers = Vec::new();
    for part in text.split(',') {
        let server: HostPort = part.parse().map_err(|error| {
            let problem = Problem {
                key: flag.to_owned(),
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
        restore(&args, Config::default(), 1_000_000_000)
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
            let error = restore(&args, Config::default(), 0).unwrap_err();
            assert_eq!(error.exit_code(), teeline_runtime::ExitCode::Usage);
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(parse(&["--map", "a=b", "--map", "a=c"]).is_err());
    }

    #[test]
    fn a_file_serves_alone_and_flags_win_over_it() {
        let text = "backup_id: prod\ntarget: {bootstrap_servers: \"t:9\"}\nstorage: {backend: filesystem, path: ./a}\n\
                    restore: {topics: {include: [x]}, dry_run: true, time_window_start: 5}";
        let config = Config::parse(text, &teeline_config::NoEnv).unwrap();
        let job_of = |flags: &[&str]| {
            let base = ["teeline-restorer", "restore", "--config", "r.yaml"];
            let cli = Cli::try_parse_from(base.iter().chain(flags)).unwrap();
            let Command::Restore(args) = cli.command else {
                panic!("not a restore")
            };
            restore(&args, config.clone(), 0).unwrap()
        };
        let alone = job_of(&[]);
        assert_eq!((alone.backup_id.as_str(), alone.dry_run), ("prod", true));
        assert_eq!(alone.request.window.from_ms, Some(5));
        assert!(alone.request.topics.matches("x") && !alone.request.topics.matches("y"));
        let flags = job_of(&["--topic", "y", "--from-timestamp", "7", "--target", "u:1"]);
        assert!(flags.request.topics.matches("y") && !flags.request.topics.matches("x"));
        assert_eq!(
            (
                flags.request.window.from_ms,
                flags.target.bootstrap_servers[0].port
            ),
            (Some(7), 1)
        );
        let cli = Cli::try_parse_from(["teeline-restorer", "restore", "--config", "r.yaml"]).unwrap();
        let Command::Restore(args) = cli.command else {
            panic!("not a restore")
        };
        let error = restore(&args, Config::default(), 0).unwrap_err().to_string();
        assert!(
            error.contains("backup_id") && error.contains("target") && error.contains("storage"),
            "{error}"
        );
    }
}
