"""Who a request is from, where its client cannot keep a secret: people, their sessions and their sign-ins."""
