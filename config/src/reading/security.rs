//! Reads how connections of Teeline's own client are protected.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::section::Section;
use crate::security::{
    Bearer, ClientCertificate, Kerberos, KerberosIdentity, Login, Sasl, Security, SecurityProtocol, Tls,
};

/// Settings of TLS and SASL by the names that other clients have for them, and where they stand here.
const ELSEWHERE: [(&str, &str); 19] = [
    ("ssl", "tls"),
    ("ssl_ca", "tls.ca_file"),
    ("ssl_ca_file", "tls.ca_file"),
    ("ssl_ca_location", "tls.ca_file"),
    ("ssl_certificate_file", "tls.cert_file"),
    ("ssl_certificate_location", "tls.cert_file"),
    ("ssl_key_file", "tls.key_file"),
    ("ssl_key_location", "tls.key_file"),
    ("sasl_mechanism", "sasl.mechanism"),
    ("sasl_mechanisms", "sasl.mechanism"),
    ("sasl_username", "sasl.username"),
    ("sasl_password", "sasl.password"),
    ("sasl_password_file", "sasl.password_file"),
    ("sasl_jaas_config", "sasl.username and sasl.password"),
    ("sasl_kerberos_service_name", "sasl.service_name"),
    ("sasl_kerberos_keytab", "sasl.keytab"),
    ("sasl_kerberos_principal", "sasl.principal"),
    ("username", "sasl.username"),
    ("password", "sasl.password"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    OauthBearer,
    Gssapi,
}

/// The keys `security_protocol`, `tls` and `sasl` of an endpoint. What is wrong is noted, and left out.
pub(super) fn security(section: &mut Section<'_>) -> Security {
    protection(section, true).1
}

/// The same for sessions of clients, which may authenticate themselves: SASL without `sasl` is theirs.
pub(super) fn sessions(section: &mut Section<'_>) -> (SecurityProtocol, Security) {
    protection(section, false)
}

fn protection(section: &mut Section<'_>, sasl_is_ours: bool) -> (SecurityProtocol, Security) {
    section.elsewhere(&ELSEWHERE);
    let protocol = section.choice("security_protocol", &SecurityProtocol::ALL, &[]);
    let wrong = protocol.is_none() && section.has("security_protocol");
    let protocol = protocol.unwrap_or_default();
    for (key, meant) in [("tls", protocol.has_tls()), ("sasl", protocol.has_sasl())] {
        if section.has(key) && !meant && !wrong {
            let message = format!("security_protocol {} does not use it", protocol.as_str());
            let hint = match key {
                "tls" => "set security_protocol to SSL or SASL_SSL, or remove the key",
                _ => "set security_protocol to SASL_SSL or SASL_PLAINTEXT, or remove the key",
            };
            section.hidden_problem(key, message, hint);
        }
    }
    let tls = section.section("tls").map(tls).unwrap_or_default();
    let sasl = match section.section("sasl") {
        Some(found) => sasl(found),
        None => {
            if protocol.has_sasl() && sasl_is_ours && !section.has("sasl") {
                let hint = "say who Teeline is: sasl.mechanism, and what the mechanism needs";
                section.problem("sasl", "is missing", hint);
            }
            None
        }
    };
    let security = Security {
        tls: protocol.has_tls().then_some(tls),
        sasl: sasl.filter(|_| protocol.has_sasl()),
    };
    (protocol, security)
}

fn tls(mut section: Section<'_>) -> Tls {
    let never = "a broker whose certificate is not checked may be anybody: name its authority in ca_file, or \
                 its name in server_name";
    for key in [
        "insecure",
        "skip_verify",
        "insecure_skip_verify",
        "verify",
        "verify_hostname",
    ] {
        section.refused(key, "does not exist", never);
    }
    let ca_file = section.readable_file("ca_file");
    let cert_file = section.readable_file("cert_file");
    let key_file = section.readable_file("key_file");
    let server_name = section.text("server_name");
    if section.has("cert_file") != section.has("key_file") {
        let (there, missing) = match section.has("cert_file") {
            true => ("cert_file", "key_file"),
            false => ("key_file", "cert_file"),
        };
        section.problem(
            there,
            format!("{missing} is missing"),
            "a certificate and its key go together",
        );
    }
    section.finish();
    let client = cert_file
        .zip(key_file)
        .map(|(cert_file, key_file)| ClientCertificate { cert_file, key_file });
    Tls {
        ca_file,
        client,
        server_name,
    }
}

fn sasl(mut section: Section<'_>) -> Option<Sasl> {
    let mechanism = mechanism(&mut section);
    let username = section.text("username");
    let password = section.credential("password", "password_file");
    let token = section.credential("token", "token_file");
    let extensions = section.table("extensions");
    let kerberos = kerberos(&mut section, mechanism);
    if let Some(mechanism) = mechanism {
        check_needs(&section, mechanism);
    }
    check_extensions(&section, extensions.as_ref());
    section.finish();
    let mechanism = mechanism?;
    if mechanism == Mechanism::Gssapi {
        return kerberos.map(Sasl::Gssapi);
    }
    if mechanism == Mechanism::OauthBearer {
        let extensions = extensions.unwrap_or_default();
        return Some(Sasl::OauthBearer(Bearer {
            token: token?,
            extensions,
        }));
    }
    let login = Login {
        username: username?,
        password: password?,
    };
    Some(match mechanism {
        Mechanism::ScramSha256 => Sasl::ScramSha256(login),
        Mechanism::ScramSha512 => Sasl::ScramSha512(login),
        Mechanism::Plain | Mechanism::OauthBearer | Mechanism::Gssapi => Sasl::Plain(login),
    })
}

fn mechanism(section: &mut Section<'_>) -> Option<Mechanism> {
    const KEY: &str = "mechanism";
    if !section.has(KEY) {
        let hint = "choose from SCRAM-SHA-512, SCRAM-SHA-256, PLAIN, OAUTHBEARER, GSSAPI";
        section.problem(KEY, "is missing", hint);
    }
    section.choice(
        KEY,
        &[
            ("SCRAM-SHA-512", Mechanism::ScramSha512),
            ("SCRAM-SHA-256", Mechanism::ScramSha256),
            ("PLAIN", Mechanism::Plain),
            ("OAUTHBEARER", Mechanism::OauthBearer),
            ("GSSAPI", Mechanism::Gssapi),
        ],
        &["AWS_MSK_IAM"],
    )
}

/// Each mechanism gets all that it needs, and nothing that it would ignore.
fn check_needs(section: &Section<'_>, mechanism: Mechanism) {
    let (needed, unused): (&[[&str; 3]], &[&str]) = match mechanism {
        Mechanism::OauthBearer => (
            &[[
                "token",
                "token_file",
                "name the file that your identity provider's helper keeps fresh in token_file",
            ]],
            &["username", "password", "password_file"],
        ),
        // Its own keys are checked where they are read.
        Mechanism::Gssapi => (
            &[],
            &[
                "username",
                "password",
                "password_file",
                "token",
                "token_file",
                "extensions",
            ],
        ),
        _ => (
            &[
                ["username", "username", "say as whom"],
                [
                    "password",
                    "password_file",
                    "write it as ${VAR}, or name a file that holds it in password_file",
                ],
            ],
            &["token", "token_file", "extensions"],
        ),
    };
    for [key, file_key, hint] in needed {
        if !section.has(key) && !section.has(file_key) {
            section.problem(key, "is missing", *hint);
        }
    }
    for key in unused.iter().filter(|key| section.has(key)) {
        section.hidden_problem(key, "the mechanism does not use it", "remove the key");
    }
}

const KERBEROS_KEYS: [&str; 5] = ["principal", "keytab", "ticket_cache", "service_name", "krb5_conf"];

/// What GSSAPI needs; with another mechanism its keys are refused.
fn kerberos(section: &mut Section<'_>, mechanism: Option<Mechanism>) -> Option<Kerberos> {
    let principal = section.text("principal");
    let keytab = section.readable_bytes("keytab");
    let cache = section.text("ticket_cache");
    let service_name = section.text("service_name");
    let configuration = section.path("krb5_conf");
    if mechanism != Some(Mechanism::Gssapi) {
        // A mechanism that is wrong or missing says enough.
        for key in KERBEROS_KEYS.iter().filter(|_| mechanism.is_some()) {
            if section.has(key) {
                section.problem(key, "the mechanism does not use it", "remove the key");
            }
        }
        return None;
    }
    let identity = match (section.has("keytab"), section.has("ticket_cache")) {
        (true, true) => {
            let hint = "remove keytab and principal, or ticket_cache";
            section.problem("ticket_cache", "is given beside keytab", hint);
            None
        }
        (false, false) => {
            let hint = "name the file with the keys of Teeline's principal, or give tickets in ticket_cache";
            section.problem("keytab", "is missing", hint);
            None
        }
        (true, false) => {
            if !section.has("principal") {
                let hint = "say as whom: teeline@EXAMPLE.COM";
                section.problem("principal", "is missing", hint);
            }
            principal
                .zip(keytab)
                .map(|(principal, keytab)| KerberosIdentity::Keytab { principal, keytab })
        }
        (false, true) => {
            if section.has("principal") {
                let hint = "the tickets say as whom; remove the key";
                section.problem("principal", "ticket_cache does not use it", hint);
            }
            cache.and_then(|cache| ticket_cache(section, &cache))
        }
    };
    let service_name = service_name.unwrap_or_else(|| Kerberos::DEFAULT_SERVICE_NAME.to_owned());
    if service_name.is_empty() || service_name.contains(['/', '@']) {
        let hint = "it is the first part of the brokers' principal: kafka of kafka/broker.example.com";
        section.problem("service_name", "is not a name", hint);
    }
    Some(Kerberos {
        identity: identity?,
        service_name,
        configuration: configuration.map_or_else(|| section.krb5_configuration(), |path| vec![path]),
    })
}

/// The file of a ticket cache, which may not be there yet.
fn ticket_cache(section: &Section<'_>, text: &str) -> Option<KerberosIdentity> {
    let (kind, path) = match text.split_once(':') {
        Some((kind, path)) if !kind.contains('/') => (kind, path),
        _ => ("FILE", text),
    };
    if kind != "FILE" || path.is_empty() {
        let hint = "let kinit or its like write a file: KRB5CCNAME=FILE:/run/teeline/tickets";
        section.problem("ticket_cache", format!("{kind} is not read, only FILE is"), hint);
        return None;
    }
    Some(KerberosIdentity::TicketCache(PathBuf::from(path)))
}

/// RFC 7628: names are letters, values are printable; `auth` is the token's own.
fn check_extensions(section: &Section<'_>, extensions: Option<&BTreeMap<String, String>>) {
    for (name, value) in extensions.into_iter().flatten() {
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let printable = value
            .bytes()
            .all(|byte| matches!(byte, 0x20..=0x7e | b'\t' | b'\r' | b'\n'));
        if !named || name == "auth" || !printable {
            section.hidden_problem(
                "extensions",
                format!("{name:?} is not a name of letters with a printable value"),
                "RFC 7628 allows no other; the name auth belongs to the token",
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io;
    use std::path::{Path, PathBuf};

    use crate::environment::Env;
    use crate::security::{Credential, KerberosIdentity, Sasl, SecurityProtocol};
    use crate::{Config, NoEnv};

    struct Files;

    impl Env for Files {
        fn var(&self, _name: &str) -> Option<String> {
            None
        }

        fn read_file(&self, path: &Path) -> io::Result<String> {
            match path.starts_with("/there") {
                true => Ok("hidden\n".to_owned()),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn target(rest: &str) -> Result<Config, String> {
        let text = format!("target: {{bootstrap_servers: 'a:1', {rest}}}");
        Config::parse(&text, &Files).map_err(|errors| {
            let problems = errors.problems.iter().map(ToString::to_string);
            problems.collect::<Vec<_>>().join("\n")
        })
    }

    fn refused(rest: &str, parts: &[&str]) {
        let problems = target(rest).unwrap_err();
        for part in parts {
            assert!(problems.contains(part), "{part:?} is not in {problems}");
        }
        assert_eq!(problems.lines().count(), parts.len(), "{problems}");
        assert!(!problems.contains("hidden"), "{problems}");
    }

    #[test]
    fn each_protocol_takes_what_it_needs() {
        let security = |rest: &str| target(rest).unwrap().target.unwrap().security;
        assert_eq!(security("client_id: x").protocol(), SecurityProtocol::Plaintext);
        let ssl = security("security_protocol: ssl, tls: {server_name: kafka}");
        assert_eq!(ssl.protocol(), SecurityProtocol::Ssl);
        assert_eq!(ssl.tls.unwrap().server_name.as_deref(), Some("kafka"));
        let system = security("security_protocol: SSL").tls.unwrap();
        assert!(system.ca_file.is_none() && system.client.is_none());
        let scram = security(
            "security_protocol: SASL_PLAINTEXT, sasl: {mechanism: scram-sha-256, username: u, password: hidden}",
        );
        assert_eq!(scram.protocol(), SecurityProtocol::SaslPlaintext);
        let Some(Sasl::ScramSha256(login)) = scram.sasl else {
            panic!("not SCRAM")
        };
        assert!(matches!(login.password, Credential::Given(secret) if secret.expose() == "hidden"));
        let bearer =
            security("security_protocol: SASL_SSL, sasl: {mechanism: OAUTHBEARER, token_file: /there/token}");
        assert_eq!(bearer.sasl.unwrap().mechanism(), "OAUTHBEARER");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let plain = "mechanism: PLAIN, username: u, password: hidden";
        refused(
            &format!("sasl: {{{plain}}}"),
            &["target.sasl: security_protocol PLAINTEXT does not use it; set security_protocol to SASL_SSL"],
        );
        refused("security_protocol: SASL_SSL", &["target.sasl: is missing"]);
        refused(
            &format!("security_protocol: SASL_SSL, sasl: {{{plain}, token: hidden}}"),
            &["target.sasl.token: the mechanism does not use it"],
        );
        refused(
            "security_protocol: SASL_SSL, sasl: {mechanism: PLAIN}",
            &[
                "target.sasl.username: is missing",
                "target.sasl.password: is missing",
            ],
        );
        refused(
            "security_protocol: SSL, tls: {cert_file: /there/cert}",
            &["key_file is missing; a certificate and its key go together"],
        );
        refused(
            "security_protocol: SSL, tls: {ca_file: /nowhere}",
            &["target.tls.ca_file = \"/nowhere\": cannot be read"],
        );
        refused(
            "security_protocol: SASL_SSL, sasl: {mechanism: OAUTHBEARER, token: hidden, extensions: {auth: hidden}}",
            &["target.sasl.extensions: \"auth\" is not a name of letters"],
        );
    }

    #[test]
    fn kerberos_takes_a_keytab_or_tickets_and_nothing_that_it_would_ignore() {
        let gssapi = |rest: &str| format!("security_protocol: SASL_SSL, sasl: {{mechanism: GSSAPI{rest}}}");
        let read = |rest: &str| match target(&gssapi(rest)).unwrap().target.unwrap().security.sasl {
            Some(Sasl::Gssapi(kerberos)) => kerberos,
            other => panic!("{other:?}"),
        };
        let kerberos = read(", principal: me@REALM, keytab: /there/keytab");
        let KerberosIdentity::Keytab { principal, .. } = &kerberos.identity else {
            panic!("{kerberos:?}")
        };
        assert_eq!(
            (principal.as_str(), kerberos.service_name.as_str()),
            ("me@REALM", "kafka")
        );
        assert_eq!(kerberos.configuration, [PathBuf::from("/etc/krb5.conf")]);
        let kerberos = read(", ticket_cache: 'FILE:/run/tickets', service_name: log, krb5_conf: /own");
        assert_eq!(
            kerberos.identity,
            KerberosIdentity::TicketCache(PathBuf::from("/run/tickets"))
        );
        assert_eq!(kerberos.service_name, "log");
        assert_eq!(kerberos.configuration, [PathBuf::from("/own")]);
        refused(&gssapi(""), &["target.sasl.keytab: is missing"]);
        refused(
            &gssapi(", keytab: /nowhere"),
            &[
                "target.sasl.keytab = \"/nowhere\": cannot be read",
                "target.sasl.principal: is missing",
            ],
        );
        refused(
            &gssapi(", ticket_cache: 'KCM:1000', password: hidden"),
            &[
                "target.sasl.ticket_cache = \"KCM:1000\": KCM is not read, only FILE is",
                "target.sasl.password: the mechanism does not use it",
            ],
        );
        refused(
            &gssapi(", ticket_cache: /t, keytab: /there/keytab, principal: me"),
            &["target.sasl.ticket_cache = \"/t\": is given beside keytab"],
        );
        refused(
            "security_protocol: SASL_SSL, sasl: {mechanism: PLAIN, username: u, password: hidden, keytab: /there/k}",
            &["target.sasl.keytab = \"/there/k\": the mechanism does not use it"],
        );
    }

    #[test]
    fn what_cannot_be_had_says_why_and_what_to_do_instead() {
        refused(
            "security_protocol: SSL, tls: {insecure: true}",
            &[
                "target.tls.insecure: does not exist; a broker whose certificate is not checked may be anybody",
            ],
        );
        refused(
            "sasl_password: hidden, ssl_ca_location: /there/ca",
            &[
                "target.ssl_ca_location: has another name here; write it as tls.ca_file",
                "target.sasl_password: has another name here; write it as sasl.password",
            ],
        );
    }

    #[test]
    fn sessions_stay_as_they_are_and_questions_get_credentials() {
        let upstream = |rest: &str| {
            let text = format!("clusters: [{{upstream: {{bootstrap_servers: 'a:1', {rest}}}}}]");
            Config::parse(&text, &NoEnv)
        };
        let errors = upstream("security_protocol: SSL, sasl: {password: hidden}").unwrap_err();
        let problems: Vec<_> = errors.problems.iter().map(ToString::to_string).collect();
        assert!(
            problems[0].contains("upstream.sasl: security_protocol SSL does not use it"),
            "{problems:?}"
        );
        assert!(!problems.join("").contains("hidden"));
        assert!(upstream("security_protocol: SASL_PLAINTEXT").is_ok());
        let own = "client_id: me, capture_credentials: {security_protocol: SASL_PLAINTEXT, \
                   sasl: {mechanism: PLAIN, username: u, password: p}}";
        let cluster = upstream(own).unwrap().clusters.remove(0);
        assert_eq!(cluster.upstream.security.protocol(), SecurityProtocol::Plaintext);
        let own = cluster.own_endpoint();
        assert_eq!((own.client_id.as_str(), own.bootstrap_servers.len()), ("me", 1));
        assert_eq!(own.security.protocol(), SecurityProtocol::SaslPlaintext);
    }
}
