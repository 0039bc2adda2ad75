//! Who may do what: DescribeAcls.

use kafka_protocol::messages::DescribeAclsRequest;

use super::{ClientError, Cluster, ErrorCode};

/// A filter that every resource, pattern, operation or permission passes.
const ANY: i8 = 1;

/// One rule of the authorizer, in the numbers of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// Kind of resource: 2 topic, 3 group, 4 cluster, 5 transactional id, 6 delegation token, 7 user.
    pub resource_type: i8,
    /// Its name, or how it begins.
    pub resource_name: String,
    /// 3 literal, 4 prefixed.
    pub pattern_type: i8,
    /// Whom the rule is about, as `User:name`.
    pub principal: String,
    /// From where, `*` for anywhere.
    pub host: String,
    /// The operation, such as 3 READ, 8 DESCRIBE.
    pub operation: i8,
    /// 2 deny, 3 allow.
    pub permission: i8,
}

impl Cluster {
    /// Every rule of the authorizer; none if the cluster has no authorizer. Needs DESCRIBE on the cluster.
    pub async fn describe_acls(&self) -> Result<Vec<Acl>, ClientError> {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(ANY)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(ANY)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(ANY)
            .with_permission_type(ANY);
        let connection = self.any_connection().await?;
        let timeout = self.config().endpoint.request_timeout;
        let response = connection.call(1..=3, &request, timeout).await?;
        let code = ErrorCode(response.error_code);
        if code == ErrorCode::SECURITY_DISABLED {
            return Ok(Vec::new());
        }
        code.check(
            || "describe the ACLs".to_owned(),
            response.error_message.as_deref(),
        )?;
        let mut acls = Vec::new();
        for resource in response.resources {
            acls.extend(resource.acls.into_iter().map(|acl| Acl {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.to_string(),
                pattern_type: resource.pattern_type,
                principal: acl.principal.to_string(),
                host: acl.host.to_string(),
                operation: acl.operation,
                permission: acl.permission_type,
            }));
        }
        acls.sort();
        Ok(acls)
    }
}
