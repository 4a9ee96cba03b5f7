"""The login of the staff: passwords are hashed beside the event loop, and tries are limited before they are hashed."""
