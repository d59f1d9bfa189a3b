Feature: JWTs and roles
  So that people and programs come in with what their own issuer gives them, may do what their role says,
  and are out as soon as somebody says so.

  Scenario Outline: A JWT of the issuer opens what its role may do, and nothing else
    Given a server that takes JWTs of an issuer, with the lane <lane>
    When somebody comes with a JWT for the role "<role>"
    Then GET /v1/models is answered with <models>
    And a chat is answered with <chat>
    And restarting a worker is answered with <restart>
    And GET /v1/rbee/keys is answered with <keys>

    Examples:
      | lane | role     | models | chat | restart | keys |
      | on   | viewer   | 200    | 403  | 403     | 403  |
      | on   | user     | 200    | 200  | 403     | 403  |
      | off  | user     | 200    | 200  | 403     | 403  |
      | on   | operator | 200    | 200  | 202     | 403  |
      | on   | admin    | 200    | 200  | 202     | 200  |

  Scenario: Whoever has no JWT does not come in
    Given a server that takes JWTs of an issuer, with the lane on
    When somebody comes without a credential
    Then GET /v1/models is answered with 401
    And a chat is answered with 401
    And GET /health/ready is answered with 200

  Scenario Outline: A JWT that is forged or not for this server opens nothing, on either face
    Given a server that takes JWTs of an issuer, with the lane <lane>
    When somebody comes with JWTs that are not good
    Then each of them is answered with 401 on a hot route and on a slow one
    And none of them is in the log

    Examples:
      | lane |
      | on   |
      | off  |

  Scenario: Forgers must wait, those who are known need not
    Given a server that takes JWTs of an issuer, with the lane on
    When somebody comes with a JWT for the role "user"
    And GET /v1/models is answered with 200
    And 30 forged JWTs are tried
    Then the last of them was told to wait
    And GET /v1/models is answered with 200

  Scenario: A JWT may name the models that may be asked for
    Given a server that takes JWTs of an issuer, with models from a claim
    When somebody comes with a JWT for the model "synthetic"
    Then a chat is answered with 200
    When somebody comes with a JWT for the model "other"
    Then a chat is answered with 404
    And no model is listed
    When somebody comes with a JWT that names no model
    Then a chat is answered with 401

  Scenario Outline: Limits hold for a subject, whatever JWT it comes with, on either face
    Given a server that limits users who come with a JWT, with the lane <lane>
    When "ada" comes with a JWT for the role "user"
    Then a chat is answered with 200
    And the answer tells that 0 requests are left
    When "ada" comes with another JWT for the role "user"
    Then a chat is answered with 429
    And the answer tells that 0 requests are left
    And GET /v1/models is answered with 200
    When "bob" comes with a JWT for the role "user"
    Then a chat is answered with 200
    When "ada" comes with a JWT for the role "operator"
    Then a chat is answered with 200
    And the answer tells of no limit

    Examples:
      | lane |
      | on   |
      | off  |

  Scenario: A JWT that is revoked over the API is refused at once, and after a restart
    Given a server that takes JWTs of an issuer, with the lane on
    And a stream of somebody with a JWT
    When an admin revokes that JWT over the API
    Then the stream ends with "invalid_api_key" and [DONE]
    And GET /v1/models is answered with 401
    When the server is started again
    Then GET /v1/models is answered with 401
    And the audit log tells "auth.success" and "jwt.revoked" of actors that are JWTs

  Scenario: A JWT that is revoked by a command is refused within a second
    Given a server that takes JWTs of an issuer, with the lane on
    And a stream of somebody with a JWT
    When an operator revokes that JWT by a command
    Then the stream ends with "invalid_api_key" and [DONE]
    And GET /v1/models is answered with 401
    And the command lists it

  Scenario: What runs ends when its JWT expires
    Given a server that takes JWTs of an issuer, with the lane on
    And a stream of somebody with a JWT that expires in 3 seconds
    Then the stream ends with "invalid_api_key" and [DONE]
    And GET /v1/models is answered with 401

  Scenario: Keys that the issuer changes in its file are taken, and those that it takes away are not
    Given a server that takes JWTs of an issuer, with the lane on
    When somebody comes with a JWT for the role "user"
    Then GET /v1/models is answered with 200
    When the issuer replaces its keys and the server is told by SIGHUP
    Then GET /v1/models is answered with 401
    And a JWT of the new keys is answered with 200

  Scenario: Keys from an address on this machine, which the operator allows
    Given a server that fetches the issuer's keys from an address of a network that is allowed
    When somebody comes with a JWT for the role "user"
    Then GET /v1/models is answered with 200

  Scenario: Keys from an address on this machine, which nobody has allowed
    Given a server that fetches the issuer's keys from an address of a network that is not allowed
    When somebody comes with a JWT for the role "user"
    Then GET /v1/models is answered with 503
    And the address was not asked

  Scenario: API keys are taken beside JWTs
    Given a server that takes JWTs of an issuer, with the lane on
    When an operator makes an API key for the role "user" and uses it
    Then GET /v1/models is answered with 200
    And a chat is answered with 200
