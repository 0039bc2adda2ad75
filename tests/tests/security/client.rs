//! The client alone: every mechanism, every refusal, sessions that end.

use std::time::{Duration, Instant};

use teeline_config::{Credential, Login, Sasl, Secret, Security, Tls};
use teeline_tests::wait::seconds;
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::{
    ClientError, Cluster, ErrorCode, FetchOptions, NewTopic, OffsetAt, TopicPartition,
};

use crate::secured::{
    PASSWORD, SECURED, SESSION, as_anybody, bearer, certificate, impatient, login, mutual, tls, token,
};

fn with(tls: Option<Tls>, sasl: Option<Sasl>) -> Security {
    Security { tls, sasl }
}

/// A topic of its own, made past all protection.
async fn topic(name: &str) -> TopicPartition {
    let new = NewTopic {
        name: name.to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: Vec::new(),
    };
    let cluster = as_anybody().await;
    cluster
        .create_topics(&[new], false)
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let partition = TopicPartition::new(name, 0);
    cluster.list_offset(&partition, OffsetAt::Latest).await.unwrap();
    partition
}

async fn refused(address: &str, security: Security) -> ClientError {
    let started = Instant::now();
    let error = Cluster::connect(impatient(address, security)).await.unwrap_err();
    let took = started.elapsed();
    assert!(took < seconds(10), "{error} only after {took:?}");
    assert!(
        !format!("{error:?}").contains(PASSWORD),
        "the error shows the password"
    );
    error
}

/// The error and all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn every_protocol_and_mechanism_is_spoken() {
    let partition = topic("spoken").await;
    let secured = &*SECURED;
    let fresh = || bearer(Credential::Given(Secret::new(token(seconds(300)))));
    let ways = [
        (secured.mutual_tls(), with(Some(mutual()), None)),
        (secured.sasl_plaintext(), with(None, Some(Sasl::Plain(login())))),
        (
            secured.sasl_plaintext(),
            with(None, Some(Sasl::ScramSha256(login()))),
        ),
        (
            secured.sasl_plaintext(),
            with(None, Some(Sasl::ScramSha512(login()))),
        ),
        (secured.sasl_ssl(), with(Some(tls()), Some(Sasl::Plain(login())))),
        (
            secured.sasl_ssl(),
            with(Some(tls()), Some(Sasl::ScramSha512(login()))),
        ),
        (secured.sasl_ssl(), with(Some(tls()), Some(fresh()))),
    ];
    for (address, security) in ways {
        let what = format!("{security:?}");
        let cluster = Cluster::connect(impatient(&address, security))
            .await
            .unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
        // Only the right user may look.
        let end = cluster.list_offset(&partition, OffsetAt::Latest).await;
        assert_eq!(end.unwrap().offset, 0, "{what}");
        let options = FetchOptions {
            max_wait: Duration::from_millis(1),
            ..FetchOptions::default()
        };
        cluster.fetch(&partition, 0, &options).await.unwrap();
    }
}

#[tokio::test]
async fn who_is_not_who_they_say_is_refused_at_once_and_told_why() {
    let secured = &*SECURED;
    let wrong = || Login {
        password: Credential::Given(Secret::new("wrong")),
        ..login()
    };
    for sasl in [
        Sasl::Plain(wrong()),
        Sasl::ScramSha256(wrong()),
        Sasl::ScramSha512(wrong()),
    ] {
        let error = refused(&secured.sasl_plaintext(), with(None, Some(sasl))).await;
        assert!(
            matches!(error, ClientError::Authentication { .. }),
            "{}",
            chain(&error)
        );
        assert!(!error.is_retriable());
    }
    let expired = bearer(Credential::Given(Secret::new(token(Duration::ZERO))));
    let error = refused(&secured.sasl_ssl(), with(Some(tls()), Some(expired))).await;
    assert!(
        matches!(
            error,
            ClientError::Authentication {
                mechanism: "OAUTHBEARER",
                ..
            }
        ),
        "{error}"
    );
    // The listener has other mechanisms, or none.
    let fresh = bearer(Credential::Given(Secret::new(token(seconds(60)))));
    let error = refused(&secured.sasl_plaintext(), with(None, Some(fresh))).await;
    assert!(error.to_string().contains("it offers"), "{error}");
    let plain = Some(Sasl::Plain(login()));
    let error = refused(&secured.kafka.bootstrap(), with(None, plain.clone())).await;
    assert!(error.to_string().contains("takes no SASL"), "{error}");
    // Authenticated, but without rights: that is another thing, and no reason to give the connection up.
    let partition = topic("forbidden").await;
    let nobody = Login {
        username: "nobody".to_owned(),
        password: Credential::Given(Secret::new("nothing")),
    };
    let config = impatient(&secured.sasl_plaintext(), with(None, Some(Sasl::Plain(nobody))));
    let cluster = Cluster::connect(config).await.unwrap();
    let error = cluster
        .list_offset(&partition, OffsetAt::Latest)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
}

#[tokio::test]
async fn a_broker_that_cannot_be_trusted_is_not_spoken_to() {
    let secured = &*SECURED;
    let stranger = Tls {
        ca_file: Some(certificate("stranger.pem")),
        ..mutual()
    };
    let error = refused(&secured.mutual_tls(), with(Some(stranger), None)).await;
    assert!(
        matches!(error, ClientError::Tls { .. }) && error.to_string().contains("tls.ca_file"),
        "{error}"
    );
    let by_address = Tls {
        server_name: None,
        ..mutual()
    };
    let error = refused(&secured.mutual_tls(), with(Some(by_address), None)).await;
    assert!(
        matches!(error, ClientError::Tls { .. }) && error.to_string().contains("tls.server_name"),
        "{error}"
    );
    let without = Tls {
        client: None,
        ..mutual()
    };
    let error = refused(&secured.mutual_tls(), with(Some(without), None)).await;
    assert!(chain(&error).contains("tls.cert_file"), "{}", chain(&error));
    assert!(!error.is_retriable());
}

#[tokio::test]
async fn a_listener_of_another_kind_is_named_in_the_error() {
    let secured = &*SECURED;
    let error = refused(&secured.kafka.bootstrap(), with(Some(tls()), None)).await;
    assert!(chain(&error).contains("security_protocol"), "{}", chain(&error));
    let error = refused(&secured.mutual_tls(), with(None, None)).await;
    assert!(chain(&error).contains("TLS"), "{}", chain(&error));
    let error = refused(&secured.sasl_plaintext(), with(None, None)).await;
    assert!(chain(&error).contains("may want SASL"), "{}", chain(&error));
}

/// Asks without pause for so long; no question may fail.
pub(crate) async fn ask_for(cluster: &Cluster, partition: &TopicPartition, time: Duration) -> u64 {
    let started = Instant::now();
    let mut asked = 0;
    while started.elapsed() < time {
        let answers = tokio::join!(
            cluster.list_offset(partition, OffsetAt::Latest),
            cluster.list_offset(partition, OffsetAt::Earliest),
        );
        let failed = [answers.0, answers.1].into_iter().find_map(Result::err);
        if let Some(error) = failed {
            panic!(
                "after {:?} and {asked} questions: {}",
                started.elapsed(),
                chain(&error)
            );
        }
        asked += 2;
    }
    asked
}

#[tokio::test]
async fn sessions_are_renewed_on_their_connections_before_they_end() {
    let partition = topic("renewed").await;
    let security = with(Some(tls()), Some(Sasl::ScramSha512(login())));
    let cluster = Cluster::connect(impatient(&SECURED.sasl_ssl(), security))
        .await
        .unwrap();
    assert!(ask_for(&cluster, &partition, SESSION * 2 + SESSION / 2).await > 100);
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_keeps_the_connection() {
    let work = WorkDir::create("token");
    let file = work.join("token");
    let life = Duration::from_secs(3);
    std::fs::write(&file, token(life)).unwrap();
    let partition = topic("tokens").await;
    let security = with(Some(tls()), Some(bearer(Credential::File(file.clone()))));
    let cluster = Cluster::connect(impatient(&SECURED.sasl_ssl(), security))
        .await
        .unwrap();
    ask_for(&cluster, &partition, life / 2).await;
    std::fs::write(&file, token(seconds(300))).unwrap();
    ask_for(&cluster, &partition, life).await;
}

#[tokio::test]
async fn a_certificate_that_is_replaced_in_its_file_is_used_by_the_next_connection() {
    let partition = topic("certificates").await;
    let work = WorkDir::create("authority");
    let file = work.join("authority.pem");
    let replace = |name: &str| std::fs::copy(certificate(name), &file).unwrap();
    replace("authority.pem");
    let trusting = Tls {
        ca_file: Some(file.clone()),
        ..tls()
    };
    let security = with(Some(trusting), Some(Sasl::Plain(login())));
    let cluster = Cluster::connect(impatient(&SECURED.sasl_ssl(), security))
        .await
        .unwrap();
    cluster.list_offset(&partition, OffsetAt::Latest).await.unwrap();
    // Fetches have a connection of their own, which is made now.
    replace("stranger.pem");
    let options = FetchOptions {
        max_wait: Duration::from_millis(1),
        ..FetchOptions::default()
    };
    let error = cluster.fetch(&partition, 0, &options).await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error}");
    replace("authority.pem");
    cluster.fetch(&partition, 0, &options).await.unwrap();
}
