"""Who somebody is: users and keys, sessions, the identity provider, the cookie."""
