//! The example files, and the document beside them.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::*;
use crate::jobs::Compression;
use crate::security::{Credential, Sasl, SecurityProtocol};
use crate::when::When;

/// Every variable and every file is there.
pub(super) struct FullEnv;

impl Env for FullEnv {
    fn var(&self, name: &str) -> Option<String> {
        Some(format!("value-of-{name}"))
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        Ok(format!("content-of-{}\n", path.display()))
    }
}

pub(super) fn example(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

fn load_example(name: &str, program: Program) -> Config {
    Config::parse_for(&example(name), &FullEnv, program).unwrap_or_else(|errors| panic!("{name}: {errors}"))
}

#[test]
fn every_example_loads_for_its_program() {
    let proxy = load_example("proxy.yaml", Program::Proxy);
    assert_eq!(proxy.clusters[0].capture.include.len(), 3);
    let storage = proxy.storage.unwrap();
    assert_eq!(
        storage.access_key.unwrap().expose(),
        "value-of-TEELINE_ACCESS_KEY"
    );
    assert_eq!(
        storage.secret_key.unwrap().expose(),
        "content-of-/run/secrets/teeline-secret-key"
    );
    load_example("proxy-minimal.yaml", Program::Proxy);
    let guarded = load_example("proxy-tls.yaml", Program::Proxy);
    assert!(guarded.warnings().is_empty(), "{:?}", guarded.warnings());
    let listen = &guarded.clusters[0].listen;
    assert_eq!(
        listen.advertised(3),
        Some(("broker-3.kafka.example.com".to_owned(), 443))
    );
    let segmenter = load_example("segmenter.yaml", Program::Segmenter);
    assert_eq!(segmenter.segmenter.compression, Compression::Lz4);
    assert!(!segmenter.segmenter.embedded);
    let own = proxy.clusters[0].own_endpoint();
    assert_eq!(own.bootstrap_servers[0].to_string(), "kafka-1.example.com:9094");
    assert_eq!(own.security.protocol(), SecurityProtocol::SaslSsl);
    assert!(own.security.tls.as_ref().unwrap().client.is_some());
    assert_eq!(own.client_rack.as_deref(), Some("eu-central-1a"));
    let source = &segmenter.clusters[0];
    assert_eq!(
        source.own_endpoint().bootstrap_servers,
        source.upstream.bootstrap_servers
    );
    let backup = load_example("backup.yaml", Program::Backup);
    let bearer = match backup.source.as_ref().unwrap().security.sasl.as_ref().unwrap() {
        Sasl::OauthBearer(bearer) => bearer,
        other => panic!("{}", other.mechanism()),
    };
    assert_eq!(bearer.token, Credential::File("/run/secrets/kafka-token".into()));
    assert!(backup.backup.topics.matches("payments-eu") && !backup.backup.topics.matches("orders-changelog"));
    let restore = load_example("restore.yaml", Program::Restorer).restore;
    assert_eq!(restore.time_window_end, Some(When::At(1_795_260_000_000)));
    assert_eq!(restore.time_window_start, Some(When::At(1_795_244_400_000)));
    assert_eq!(restore.topic_mapping["orders"], "orders_restored");
}

/// Stem of a key that may be written in two ways.
fn stem(key: &str) -> &str {
    key.strip_suffix("_ms")
        .or_else(|| key.strip_suffix("_bytes"))
        .unwrap_or(key)
}

#[test]
fn examples_and_document_show_every_key_of_the_schema() {
    let mut schema = BTreeSet::new();
    let mut shown = String::new();
    for name in [
        "proxy.yaml",
        "proxy-tls.yaml",
        "proxy-intercept.yaml",
        "segmenter.yaml",
        "backup.yaml",
        "restore.yaml",
    ] {
        let text = example(name);
        let reading = Reading::new(&FullEnv);
        reading::config(Section::new(&reading, String::new(), top_mapping(&text).unwrap()));
        schema.extend(reading.schema.take());
        shown.push_str(&text);
    }
    assert!(schema.len() > 80, "{}", schema.len());
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    let document = std::fs::read_to_string(document).unwrap();
    for path in schema {
        let key = stem(path.rsplit('.').next().unwrap());
        let forms = [key.to_owned(), format!("{key}_ms"), format!("{key}_bytes")];
        let in_examples = forms.iter().any(|form| shown.contains(&format!("{form}:")));
        assert!(in_examples, "no example has {path}");
        let in_document = forms.iter().any(|form| document.contains(&format!("`{form}`")));
        assert!(in_document, "docs/CONFIGURATION.md has no `{key}` ({path})");
    }
}

#[test]
fn the_minimal_file_and_the_quick_start_have_the_documented_defaults() {
    let file = load_example("proxy-minimal.yaml", Program::Proxy);
    let flags = ProxyFlags {
        upstream: "127.0.0.1:9092".to_owned(),
        ..ProxyFlags::default()
    };
    let quick = Config::for_proxy_flags(&flags).unwrap();
    assert_eq!(quick.clusters, file.clusters);
    assert_eq!(
        (&quick.storage, &quick.segmenter, &quick.admin),
        (&file.storage, &file.segmenter, &file.admin)
    );
    let cluster = &quick.clusters[0];
    assert_eq!(cluster.listen.address.to_string(), "127.0.0.1:19092");
    assert_eq!(
        cluster.listen.advertised(0),
        Some(("127.0.0.1".to_owned(), 19093))
    );
    assert_eq!(cluster.capture.buffer.dir, PathBuf::from("./teeline-buffer"));
    assert_eq!(
        (cluster.capture.ack, cluster.backup_id.as_str()),
        (Ack::Durable, "default")
    );
    assert!(!cluster.capture.topics().matches("__consumer_offsets"));
    assert_eq!(quick.admin.listen.to_string(), "127.0.0.1:19644");
    assert_eq!(quick.problems_for(Program::Proxy), Vec::new());
}
