"""The node on a page: HTTP for operators, for programs and for the curious. Receive, work and deliver never need it."""
