"""Errors of the client, the same over HTTP and gRPC."""


class ClientError(Exception):
    """Base class of the client's errors."""


class ClientConfigError(ClientError):
    """The address, the key, the CA certificate or the environment's proxy cannot be used."""


class ServiceError(ClientError):
    """The service cannot be reached, or rejected a request.

    Attributes:
        status: HTTP status code, also over gRPC; None if there was no response.
        kind: Cause, such as ``image`` or ``overloaded``; empty if the service named none.
        retry_after: Seconds after which to retry, if the service named them.
        request_id: The request's id in the service's log; empty if there was no response.
        is_retryable: Whether the request was not processed and may succeed later.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        kind: str = "",
        *,
        retry_after: float | None = None,
        request_id: str = "",
        is_retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after
        self.request_id = request_id
        self.is_retryable = is_retryable
