//! What must be installed before anything is done: which of it is missing, and how to get it.

use std::process::Command;

/// Something on the PATH.
struct Tool {
    name: &'static str,
    /// Prints its version.
    command: &'static [&'static str],
    /// The oldest version that does, where it matters.
    oldest: Option<(u32, u32)>,
    used_for: &'static str,
    how_to_get: &'static str,
}

const CC: Tool = Tool {
    name: "a C compiler (cc)",
    command: &["cc", "--version"],
    oldest: None,
    used_for: "zstd, and librdkafka in the tests",
    how_to_get: "Debian, Ubuntu: apt install build-essential; Fedora: dnf group install c-development",
};
const MAKE: Tool = Tool {
    name: "make",
    command: &["make", "--version"],
    oldest: None,
    used_for: "librdkafka in the tests",
    how_to_get: "Debian, Ubuntu: apt install build-essential; Fedora: dnf group install c-development",
};
const JAVA: Tool = Tool {
    name: "Java, a JDK",
    command: &["javac", "-version"],
    oldest: Some((17, 0)),
    used_for: "real Kafka brokers and the Java client",
    how_to_get: "Debian, Ubuntu: apt install openjdk-17-jdk-headless; Fedora: dnf install java-21-openjdk-devel; or adoptium.net",
};
const MAVEN: Tool = Tool {
    name: "Maven",
    command: &["mvn", "--version"],
    oldest: None,
    used_for: "fetching Kafka's jars",
    how_to_get: "Debian, Ubuntu: apt install maven; Fedora: dnf install maven; or maven.apache.org",
};
const GO: Tool = Tool {
    name: "Go",
    command: &["go", "version"],
    oldest: Some((1, 26)),
    used_for: "the S3 server versitygw and the franz-go client",
    how_to_get: "go.dev/dl, or your distribution's package if it is new enough",
};

const PYTHON: Tool = Tool {
    name: "Python",
    command: &["python3", "-m", "pip", "--version"],
    oldest: None,
    used_for: "the Python clients of the matrix",
    how_to_get: "Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip",
};
const NODE: Tool = Tool {
    name: "Node.js with npm",
    command: &["npm", "--version"],
    oldest: None,
    used_for: "kafkajs, a client of the matrix",
    how_to_get: "Debian, Ubuntu: apt install npm; Fedora: dnf install nodejs-npm; or nodejs.org",
};

const PERL: Tool = Tool {
    name: "Perl with its core modules",
    command: &["perl", "-MFindBin", "-MIPC::Cmd", "-e", "1"],
    oldest: None,
    used_for: "OpenSSL in the rdkafka client of the matrix",
    how_to_get: "Debian, Ubuntu: apt install perl; Fedora: dnf install perl",
};

const UNSHARE: Tool = Tool {
    name: "unshare",
    command: &["unshare", "--version"],
    oldest: None,
    used_for: "the tests in networks of their own",
    how_to_get: "Debian, Ubuntu: apt install util-linux; Fedora: dnf install util-linux",
};
const IP: Tool = Tool {
    name: "ip",
    command: &["ip", "-V"],
    oldest: None,
    used_for: "the tests in networks of their own",
    how_to_get: "Debian, Ubuntu: apt install iproute2; Fedora: dnf install iproute",
};
const NFT: Tool = Tool {
    name: "nft (nftables)",
    command: &["nft", "--version"],
    oldest: None,
    used_for: "the tests in networks of their own",
    how_to_get: "Debian, Ubuntu: apt install nftables; Fedora: dnf install nftables",
};

/// What the demonstration needs.
pub(crate) fn for_demo() -> Result<(), String> {
    check(&[CC, JAVA, MAVEN])
}

/// What the tests need.
pub(crate) fn for_tests() -> Result<(), String> {
    check(&[CC, MAKE, JAVA, MAVEN, GO, UNSHARE, IP, NFT])
}

/// What the client matrix needs.
pub(crate) fn for_matrix() -> Result<(), String> {
    check(&[CC, MAKE, JAVA, MAVEN, GO, PYTHON, NODE, PERL])
}

/// Everything that is missing at once, so that nobody installs one thing after the other.
fn check(tools: &[Tool]) -> Result<(), String> {
    let problems: Vec<String> = tools.iter().filter_map(problem).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("before this can run:\n{}", problems.join("\n")))
    }
}

fn problem(tool: &Tool) -> Option<String> {
    let missing = |what: String| format!("  {what} (for {})\n      {}", tool.used_for, tool.how_to_get);
    let (program, arguments) = tool.command.split_first()?;
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => output,
        Ok(_) => {
            return Some(missing(format!(
                "{} is installed but `{}` fails",
                tool.name,
                tool.command.join(" ")
            )));
        }
        Err(_) => return Some(missing(format!("{} is missing", tool.name))),
    };
    let oldest = tool.oldest?;
    // Some Java versions answer on standard error.
    let text = [output.stdout, output.stderr].concat();
    let found = version(&String::from_utf8_lossy(&text))?;
    (found < oldest).then(|| {
        let (found, oldest) = (
            format!("{}.{}", found.0, found.1),
            format!("{}.{}", oldest.0, oldest.1),
        );
        missing(format!(
            "{} is version {found}, and {oldest} or newer is needed",
            tool.name
        ))
    })
}

/// The first `major.minor` (or just `major`) in a text.
fn version(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    let number = text
        .get(start..)?
        .split(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .next()?;
    let mut parts = number.split('.').map(str::parse::<u32>);
    Some((
        parts.next()?.ok()?,
        parts.next().and_then(Result::ok).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_say() {
        assert_eq!(version("javac 17.0.15"), Some((17, 0)));
        assert_eq!(version("javac 25"), Some((25, 0)));
        assert_eq!(version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(version("no number"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_a_way_to_get_it() {
        let absent = Tool {
            name: "Nothing",
            command: &["teeline-no-such-tool"],
            ..MAVEN
        };
        let old = Tool {
            oldest: Some((1_000, 0)),
            command: &["rustc", "--version"],
            name: "Rust",
            ..GO
        };
        let report = check(&[absent, old]).err().unwrap_or_default();
        assert!(
            report.contains("Nothing is missing (for fetching Kafka's jars)"),
            "{report}"
        );
        assert!(
            report.contains("maven.apache.org") && report.contains("1000.0 or newer"),
            "{report}"
        );
    }
}
