Feature: Secrets
  So that whoever sees the log, the processes or the files of a server has not seen its secrets.

  Scenario Outline: A secret's file that others could read or replace keeps the server from starting
    Given a server whose audit secret is <how it is>
    Then it does not start, with exit code 78, and says "<said>"
    And what it says holds nothing of the secret

    Examples:
      | how it is                      | said                                  |
      | readable for the group         | must be closed to others              |
      | behind a symbolic link         | is a symbolic link                    |
      | in a folder that all may write | others could put another in its place |
      | a credential, without systemd  | LoadCredential=audit-secret           |

  Scenario: A secret that systemd hands over is used
    Given a server whose audit secret is a credential of systemd
    When the server with secrets is stopped
    Then the audit log is sealed with that secret

  Scenario: Nobody else of its user can look into the supervisor or its warden
    Given a server with an audit secret
    Then another process of the same user can read neither memory, environment nor descriptors of the supervisor and its warden
    And no process of the server can leave a core file

  Scenario: It says so when others may look into it
    Given a server that may be looked into
    Then the log warns of "dumpable"
    And another process of the same user can read its environment

  Scenario: A worker's environment is made from nothing
    Given a server with 30 variables in its environment that are nobody's business
    Then no worker has a variable that docs/secrets.md does not name
    And no worker has a descriptor that was not made for it

  Scenario: A worker can take no new rights
    Given a server with an audit secret
    Then each worker takes no new rights, and makes files for itself alone

  Scenario: SIGHUP without anything new changes nothing and is recorded
    Given a server with an audit secret
    When it gets SIGHUP
    Then it says "config_reloaded", and the audit log has "config.reloaded"
    And it serves as before

  Scenario: A TLS key that others may read is not taken at a reload
    Given a server under TLS
    When its TLS key is opened to the group, and it gets SIGHUP
    Then it says "config_rejected", and the audit log has "config.rejected"
    And it is reached under its old certificate

  Scenario: A certificate whose key was not replaced with it is not taken
    Given a server under TLS
    When its certificate alone is replaced, and it gets SIGHUP
    Then it says "config_rejected", and the audit log has "config.rejected"
    And it is reached under its old certificate

  Scenario: A TLS key and its certificate are replaced while the server runs
    Given a server under TLS
    When its certificate and key are replaced, and it gets SIGHUP
    Then it says "config_reloaded", and the audit log has "config.reloaded"
    And it is reached under its new certificate

  Scenario: The audit secret is replaced under load
    Given a server with an audit secret
    When its audit secret is replaced, and it gets SIGHUP, while 60 requests are answered
    Then it says "audit_rekeyed", and the audit log has "audit.rekeyed"
    And all of them were answered
    When the server with secrets is stopped
    Then the audit log is good with the new secret and the old one, and with neither alone
    And it tells the begin and the end of all requests, some before the new secret and some after it

  Scenario: An audit secret that others may read is not taken at a reload
    Given a server with an audit secret
    When its audit secret is replaced by one that others may read, and it gets SIGHUP
    Then it says "config_rejected", and the audit log has "config.rejected"
    And it serves as before
    When the server with secrets is stopped
    Then the audit log is good with the old secret
