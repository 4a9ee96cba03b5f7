"""Providers of identities whose settings are known: what is to be filled in is one name of the team's own.

Firebase: https://firebase.google.com/docs/auth/admin/verify-id-tokens. Supabase: https://supabase.com/docs/guides/auth/jwts.
Clerk: https://clerk.com/docs/guides/sessions/manual-jwt-verification. Auth0: https://auth0.com/docs/secure/tokens.
Google: https://developers.google.com/identity/openid-connect/openid-connect.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

Settings = dict[str, str]


def firebase(project: str) -> Settings:
    keys = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
    return {"issuer": f"https://securetoken.google.com/{project}", "audience": project, "jwks_url": keys}


def supabase(url: str) -> Settings:
    base = f"{base_of(url)}/auth/v1"
    return {
        "issuer": base,
        "audience": "authenticated",
        "jwks_url": f"{base}/.well-known/jwks.json",
        "algorithm": "ES256",
        "plan_claim": "app_metadata.plan",
    }


def clerk(url: str) -> Settings:
    """A session token of Clerk is for no audience; it names the page that asked for it."""
    base = base_of(url)
    return {"issuer": base, "audience": "", "jwks_url": f"{base}/.well-known/jwks.json", "party_claim": "azp"}


def auth0(url: str) -> Settings:
    base = base_of(url)
    return {"issuer": f"{base}/", "jwks_url": f"{base}/.well-known/jwks.json"}


def google(client_id: str) -> Settings:
    keys = "https://www.googleapis.com/oauth2/v3/certs"
    return {"issuer": "https://accounts.google.com", "audience": client_id, "jwks_url": keys}


# What each is asked by: whose settings they are.
PRESETS: dict[str, tuple[str, Callable[[str], Settings]]] = {
    "firebase": ("the project's id", firebase),
    "supabase": ("the project's URL, https://….supabase.co", supabase),
    "clerk": ("the Frontend API URL", clerk),
    "auth0": ("the tenant's URL, https://….auth0.com", auth0),
    "google": ("the OAuth client's id", google),
}


def settings_of(preset: str, own: str) -> Settings:
    """Return the columns of an IdentityProvider. Raises ValueError where `own` cannot be what the preset asks for."""
    asked, fill = PRESETS[preset]
    own = own.strip()
    if not own or any(character.isspace() for character in own):
        raise ValueError(f"{preset} needs {asked}.")
    return {"algorithm": "RS256", "party_claim": "", "plan_claim": "", **fill(own)}


def base_of(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url[:100]} is no URL of a server; it begins with https:// and has no path.")
    return f"https://{parts.netloc}"
