//! Which users have SCRAM credentials: DescribeUserScramCredentials. Brokers never tell the credentials.

use kafka_protocol::messages::DescribeUserScramCredentialsRequest;

use super::{ClientError, Cluster, ErrorCode};

/// A user with SCRAM credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramUser {
    /// Name.
    pub user: String,
    /// Mechanisms (1 SCRAM-SHA-256, 2 SCRAM-SHA-512) and their iterations.
    pub mechanisms: Vec<(i8, i32)>,
}

impl Cluster {
    /// Every user with SCRAM credentials. Needs DESCRIBE on the cluster.
    pub async fn describe_scram_users(&self) -> Result<Vec<ScramUser>, ClientError> {
        // No names stand for all users, as null would; but brokers that refuse us stumble over null and never answer.
        let request = DescribeUserScramCredentialsRequest::default().with_users(Some(Vec::new()));
        let connection = self.any_connection().await?;
        let timeout = self.config().endpoint.request_timeout;
        let response = connection.call(0..=0, &request, timeout).await?;
        let subject = || "describe the SCRAM users".to_owned();
        ErrorCode(response.error_code).check(subject, response.error_message.as_deref())?;
        let mut users = Vec::with_capacity(response.results.len());
        for result in response.results {
            // A user that was deleted between the listing and the look has an error; it is none any more.
            if !ErrorCode(result.error_code).is_ok() {
                continue;
            }
            let mechanisms = result
                .credential_infos
                .into_iter()
                .map(|info| (info.mechanism, info.iterations));
            users.push(ScramUser {
                user: result.user.to_string(),
                mechanisms: mechanisms.collect(),
            });
        }
        Ok(users)
    }
}
