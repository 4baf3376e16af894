//! The database's own version: brought up to date at start, never guessed at.

use steward::store::migrate::{MigrateError, migrate};
use tokio_postgres::NoTls;

use crate::support::database;

#[tokio::test]
async fn a_database_of_a_newer_steward_is_refused_and_left_alone() {
    let config = database::config().await;
    let known = migrate(&config).await.unwrap();
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let newer = "insert into refinery_schema_history (version, name, applied_on, checksum)
                 values (999, 'tomorrow', '2030-01-01T00:00:00Z', '1')";
    client.execute(newer, &[]).await.unwrap();
    let refused = migrate(&config).await.unwrap_err();
    assert!(matches!(refused, MigrateError::Newer { found: 999, known: k } if k == known), "{refused}");
    assert!(refused.to_string().contains("newer steward"), "{refused}");
}
