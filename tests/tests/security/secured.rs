//! A cluster of one broker with a listener of each kind, and how to reach them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use teeline_config::{
    Bearer, ClientCertificate, Credential, HostPort, KafkaEndpoint, Login, Sasl, Secret, Security, Tls,
};
use teeline_tests::kafka::Kafka;
use teeline_wire::client::{ClientConfig, Cluster, RetryPolicy};

pub(crate) static SECURED: LazyLock<Secured> = LazyLock::new(Secured::start);

pub(crate) const USER: &str = "teeline";
pub(crate) const PASSWORD: &str = "pass=word 1";
/// Sessions by SCRAM-SHA-512 over TLS last so long.
pub(crate) const SESSION: Duration = Duration::from_secs(2);

pub(crate) struct Secured {
    pub(crate) kafka: Kafka,
}

impl Secured {
    fn start() -> Self {
        let properties = PROPERTIES
            .replace("{user}", USER)
            .replace("{password}", PASSWORD)
            .replace(
                "{keys}",
                &certificate("broker-with-key.pem").display().to_string(),
            )
            .replace("{authority}", &certificate("authority.pem").display().to_string())
            .replace("{session}", &SESSION.as_millis().to_string());
        let users: Vec<String> = ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .iter()
            .map(|mechanism| format!("{mechanism}=[name={USER},password={PASSWORD},iterations=8192]"))
            .collect();
        let arguments = ["--add-scram", &users[0], "--add-scram", &users[1]];
        let mut kafka = Kafka::prepare_with(1, &properties, &arguments);
        kafka.start_all();
        Self { kafka }
    }

    /// TLS where clients have to show a certificate.
    pub(crate) fn mutual_tls(&self) -> String {
        self.kafka.address(3)
    }

    pub(crate) fn sasl_plaintext(&self) -> String {
        self.kafka.address(4)
    }

    /// By the name that stands in the broker's certificate.
    pub(crate) fn sasl_ssl(&self) -> String {
        self.kafka.address(5).replace("127.0.0.1", "localhost")
    }
}

/// A file of `tests/certificates`.
pub(crate) fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("certificates")
        .join(name)
}

pub(crate) fn endpoint(address: &str, security: Security) -> KafkaEndpoint {
    let address: HostPort = address.parse().unwrap();
    KafkaEndpoint {
        security,
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(20),
        ..KafkaEndpoint::plaintext(vec![address])
    }
}

/// A client that gives up at the first failure.
pub(crate) fn impatient(address: &str, security: Security) -> ClientConfig {
    ClientConfig {
        retry: RetryPolicy::NONE,
        ..ClientConfig::new(endpoint(address, security))
    }
}

pub(crate) async fn as_anybody() -> Cluster {
    let endpoint = endpoint(&SECURED.kafka.bootstrap(), Security::default());
    Cluster::connect(ClientConfig::new(endpoint)).await.unwrap()
}

pub(crate) fn tls() -> Tls {
    Tls {
        ca_file: Some(certificate("authority.pem")),
        ..Tls::default()
    }
}

pub(crate) fn mutual() -> Tls {
    Tls {
        client: Some(ClientCertificate {
            cert_file: certificate("client.pem"),
            key_file: certificate("client.key"),
        }),
        // The listener is advertised by its address, which the certificate does not bear.
        server_name: Some("kafka.test".to_owned()),
        ..tls()
    }
}

pub(crate) fn login() -> Login {
    Login {
        username: USER.to_owned(),
        password: Credential::Given(Secret::new(PASSWORD)),
    }
}

pub(crate) fn bearer(token: Credential) -> Sasl {
    Sasl::OauthBearer(Bearer {
        token,
        extensions: BTreeMap::new(),
    })
}

/// A token without a signature, which Kafka's default validator takes.
pub(crate) fn token(lifetime: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = format!(
        "{{\"sub\":\"{USER}\",\"iat\":{:.3},\"exp\":{:.3}}}",
        now.as_secs_f64(),
        (now + lifetime).as_secs_f64()
    );
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", encode("{\"alg\":\"none\"}"), encode(&claims))
}

const PROPERTIES: &str = "\
listeners=PLAINTEXT://{address 0},CONTROLLER://{address 10},SSL://{address 3},SASL_PLAINTEXT://{address 4},SASL_SSL://{address 5}
advertised.listeners=PLAINTEXT://{address 0},SSL://{address 3},SASL_PLAINTEXT://{address 4},SASL_SSL://localhost:{port 5}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{user};User:CN=client
ssl.keystore.type=PEM
ssl.keystore.location={keys}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\" user_nobody=\"nothing\";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.connections.max.reauth.ms={session}
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";
listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms=3600000
";
