"""The providers whose posts we can check: rows of data, each after the provider's public documentation.

The rows stand in groups by how they sign; `generic` ones are for senders that are not here.
"""

from __future__ import annotations

from dataclasses import replace

from tailrace.gateway.schemes import Basic, Handshake, Jwt, Provider, Signature, Sns, Source, Token

__all__ = ["PROVIDERS"]

_AUTHORIZATION = Source(header="Authorization")
_BEARER = Source(header="Authorization", prefix="Bearer ")

META_CHALLENGE = Handshake(
    method="GET",
    verified=False,
    where=((Source(query="hub.mode"), "subscribe"),),
    asks=Source(query="hub.challenge"),
    token=Source(query="hub.verify_token"),
)

# HMAC of the raw body, in a header of its own.
_BODY = (
    Provider(
        name="github",
        title="GitHub",
        docs="https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
        scheme=Signature(signature=Source(header="X-Hub-Signature-256", prefix="sha256=")),
        delivery_id=Source(header="X-GitHub-Delivery"),
    ),
    Provider(
        name="bitbucket",
        title="Bitbucket",
        docs="https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/",
        scheme=Signature(signature=Source(header="X-Hub-Signature", prefix="sha256=")),
        delivery_id=Source(header="X-Request-UUID"),
    ),
    Provider(
        name="jira",
        title="Jira",
        docs="https://developer.atlassian.com/cloud/jira/platform/webhooks/",
        scheme=Signature(signature=Source(header="X-Hub-Signature", prefix="sha256=")),
        delivery_id=Source(header="X-Atlassian-Webhook-Identifier"),
    ),
    Provider(
        name="gitea",
        title="Gitea, Forgejo",
        docs="https://docs.gitea.com/usage/webhooks",
        scheme=Signature(signature=Source(header="X-Gitea-Signature")),
        delivery_id=Source(header="X-Gitea-Delivery"),
    ),
    Provider(
        name="shopify",
        title="Shopify",
        docs="https://shopify.dev/docs/apps/build/webhooks/subscribe/https",
        scheme=Signature(signature=Source(header="X-Shopify-Hmac-Sha256"), encoding="base64"),
        delivery_id=Source(header="X-Shopify-Webhook-Id"),
    ),
    Provider(
        name="linear",
        title="Linear",
        docs="https://linear.app/developers/webhooks",
        scheme=Signature(
            signature=Source(header="Linear-Signature"),
            timestamp=Source(pointer="/webhookTimestamp"),
            unit="ms",
            tolerance_s=60,
        ),
        delivery_id=Source(header="Linear-Delivery"),
    ),
    Provider(
        name="meta",
        title="Meta (Facebook, Instagram, WhatsApp)",
        docs="https://developers.facebook.com/docs/graph-api/webhooks/getting-started",
        scheme=Signature(signature=Source(header="X-Hub-Signature-256", prefix="sha256=")),
        handshakes=(META_CHALLENGE,),
    ),
    Provider(
        name="intercom",
        title="Intercom",
        docs="https://developers.intercom.com/docs/webhooks/webhook-notifications",
        scheme=Signature(signature=Source(header="X-Hub-Signature", prefix="sha1="), algorithm="hmac-sha1"),
        delivery_id=Source(pointer="/id"),
    ),
    Provider(
        name="razorpay",
        title="Razorpay",
        docs="https://razorpay.com/docs/webhooks/validate-test/",
        scheme=Signature(signature=Source(header="X-Razorpay-Signature")),
        delivery_id=Source(header="X-Razorpay-Event-Id"),
    ),
    Provider(
        name="woocommerce",
        title="WooCommerce",
        docs="https://developer.woocommerce.com/docs/apis/rest-api/v3/webhooks",
        scheme=Signature(signature=Source(header="X-WC-Webhook-Signature"), encoding="base64"),
        delivery_id=Source(header="X-WC-Webhook-Delivery-ID"),
    ),
    Provider(
        name="vercel",
        title="Vercel",
        docs="https://vercel.com/docs/webhooks/webhooks-api",
        scheme=Signature(signature=Source(header="x-vercel-signature"), algorithm="hmac-sha1"),
        delivery_id=Source(pointer="/id"),
    ),
    Provider(
        name="paystack",
        title="Paystack",
        docs="https://paystack.com/docs/payments/webhooks/",
        scheme=Signature(signature=Source(header="x-paystack-signature"), algorithm="hmac-sha512"),
    ),
    Provider(
        name="twitter",
        title="X (Twitter)",
        docs="https://docs.x.com/x-api/webhooks/introduction",
        scheme=Signature(signature=Source(header="x-twitter-webhooks-signature", prefix="sha256="), encoding="base64"),
        handshakes=(
            Handshake(
                method="GET",
                verified=False,
                asks=Source(query="crc_token"),
                answer={"response_token": "sha256={hmac-base64}"},
            ),
        ),
    ),
    Provider(
        name="line",
        title="LINE",
        docs="https://developers.line.biz/en/docs/messaging-api/verify-webhook-signature/",
        scheme=Signature(signature=Source(header="x-line-signature"), encoding="base64"),
    ),
    Provider(
        name="dropbox",
        title="Dropbox",
        docs="https://www.dropbox.com/developers/reference/webhooks",
        scheme=Signature(signature=Source(header="X-Dropbox-Signature")),
        handshakes=(Handshake(method="GET", verified=False, asks=Source(query="challenge")),),
    ),
    Provider(
        name="gocardless",
        title="GoCardless",
        docs="https://developer.gocardless.com/api-reference/#webhooks-signing-webhooks",
        scheme=Signature(signature=Source(header="Webhook-Signature")),
    ),
    Provider(
        name="coinbase-commerce",
        title="Coinbase Commerce",
        docs="https://docs.cdp.coinbase.com/commerce/docs/webhooks-security",
        scheme=Signature(signature=Source(header="X-CC-Webhook-Signature")),
        delivery_id=Source(pointer="/event/id"),
    ),
    Provider(
        name="coinify",
        title="Coinify",
        docs="https://coinify-trade-api.readme.io/reference/webhook-signature",
        scheme=Signature(signature=Source(header="X-Coinify-Webhook-Signature")),
    ),
    Provider(
        name="circleci",
        title="CircleCI",
        docs="https://circleci.com/docs/guides/integration/outbound-webhooks",
        scheme=Signature(signature=Source(header="circleci-signature", separator=",", prefix="v1=")),
        delivery_id=Source(pointer="/id"),
    ),
    Provider(
        name="pagerduty",
        title="PagerDuty",
        docs="https://developer.pagerduty.com/docs/verifying-webhook-signatures",
        scheme=Signature(signature=Source(header="X-PagerDuty-Signature", separator=",", prefix="v1=")),
        delivery_id=Source(header="X-Webhook-Id"),
    ),
    Provider(
        name="sentry",
        title="Sentry",
        docs="https://docs.sentry.io/organization/integrations/integration-platform/webhooks/",
        scheme=Signature(signature=Source(header="Sentry-Hook-Signature")),
        delivery_id=Source(header="Request-ID"),
    ),
    Provider(
        name="notion",
        title="Notion",
        docs="https://developers.notion.com/reference/webhooks",
        scheme=Signature(signature=Source(header="X-Notion-Signature", prefix="sha256=")),
        delivery_id=Source(pointer="/id"),
    ),
    Provider(
        name="typeform",
        title="Typeform",
        docs="https://www.typeform.com/developers/webhooks/secure-your-webhooks/",
        scheme=Signature(signature=Source(header="Typeform-Signature", prefix="sha256="), encoding="base64"),
        delivery_id=Source(pointer="/event_id"),
    ),
    Provider(
        name="xero",
        title="Xero",
        docs="https://developer.xero.com/documentation/guides/webhooks/configuring-your-server/",
        scheme=Signature(signature=Source(header="x-xero-signature"), encoding="base64"),
    ),
    Provider(
        name="lemonsqueezy",
        title="Lemon Squeezy",
        docs="https://docs.lemonsqueezy.com/help/webhooks/signing-requests",
        scheme=Signature(signature=Source(header="X-Signature")),
    ),
    Provider(
        name="docusign",
        title="Docusign Connect",
        docs="https://developers.docusign.com/platform/webhooks/connect/hmac/",
        scheme=Signature(signature=Source(header="X-DocuSign-Signature-1"), encoding="base64"),
    ),
    Provider(
        name="adyen",
        title="Adyen (webhooks that sign in a header)",
        docs="https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures",
        scheme=Signature(signature=Source(header="HmacSignature"), encoding="base64", key="hex"),
    ),
    Provider(
        name="nylas",
        title="Nylas",
        docs="https://developer.nylas.com/docs/v3/notifications/",
        scheme=Signature(signature=Source(header="X-Nylas-Signature")),
        delivery_id=Source(pointer="/id"),
        handshakes=(Handshake(method="GET", verified=False, asks=Source(query="challenge")),),
    ),
)

# HMAC of a timestamp and the body: a request that was seen on its way cannot be sent again later.
_TIMED = (
    Provider(
        name="stripe",
        title="Stripe",
        docs="https://docs.stripe.com/webhooks#verify-manually",
        scheme=Signature(
            signature=Source(header="Stripe-Signature", separator=",", prefix="v1="),
            signed="{timestamp}.{body}",
            timestamp=Source(header="Stripe-Signature", separator=",", prefix="t="),
        ),
        delivery_id=Source(pointer="/id"),
    ),
    Provider(
        name="paddle",
        title="Paddle",
        docs="https://developer.paddle.com/webhooks/signature-verification",
        scheme=Signature(
            signature=Source(header="Paddle-Signature", separator=";", prefix="h1="),
            signed="{timestamp}:{body}",
            timestamp=Source(header="Paddle-Signature", separator=";", prefix="ts="),
        ),
        delivery_id=Source(pointer="/notification_id"),
    ),
    Provider(
        name="slack",
        title="Slack",
        json_field="payload",
        docs="https://docs.slack.dev/authentication/verifying-requests-from-slack",
        scheme=Signature(
            signature=Source(header="X-Slack-Signature", prefix="v0="),
            signed="v0:{timestamp}:{body}",
            timestamp=Source(header="X-Slack-Request-Timestamp"),
        ),
        delivery_id=Source(pointer="/event_id"),
        handshakes=(
            Handshake(
                where=((Source(pointer="/type"), "url_verification"),),
                asks=Source(pointer="/challenge"),
                answer={"challenge": "{asked}"},
            ),
        ),
    ),
    Provider(
        name="zoom",
        title="Zoom",
        docs="https://developers.zoom.us/docs/api/webhooks/",
        scheme=Signature(
            signature=Source(header="x-zm-signature", prefix="v0="),
            signed="v0:{timestamp}:{body}",
            timestamp=Source(header="x-zm-request-timestamp"),
        ),
        handshakes=(
            Handshake(
                where=((Source(pointer="/event"), "endpoint.url_validation"),),
                asks=Source(pointer="/payload/plainToken"),
                answer={"plainToken": "{asked}", "encryptedToken": "{hmac-hex}"},
            ),
        ),
    ),
    Provider(
        name="calendly",
        title="Calendly",
        docs="https://developer.calendly.com/api-docs",
        scheme=Signature(
            signature=Source(header="Calendly-Webhook-Signature", separator=",", prefix="v1="),
            signed="{timestamp}.{body}",
            timestamp=Source(header="Calendly-Webhook-Signature", separator=",", prefix="t="),
            tolerance_s=180,
        ),
    ),
    Provider(
        name="webflow",
        title="Webflow",
        docs="https://developers.webflow.com/data/docs/working-with-webhooks",
        scheme=Signature(
            signature=Source(header="x-webflow-signature"),
            signed="{timestamp}:{body}",
            timestamp=Source(header="x-webflow-timestamp"),
            unit="ms",
        ),
    ),
    Provider(
        name="dropbox-sign",
        title="Dropbox Sign (HelloSign)",
        json_field="json",
        docs="https://developers.hellosign.com/docs/events/walkthrough",
        scheme=Signature(
            signature=Source(pointer="/event/event_hash"),
            signed="{pointer:/event/event_time}{pointer:/event/event_type}",
            timestamp=Source(pointer="/event/event_time"),
            tolerance_s=3600,
        ),
    ),
    Provider(
        name="box",
        title="Box",
        docs="https://developer.box.com/guides/webhooks/v2/signatures-v2",
        scheme=Signature(
            signature=Source(header="BOX-SIGNATURE-PRIMARY"),
            signed="{body}{timestamp}",
            encoding="base64",
            timestamp=Source(header="BOX-DELIVERY-TIMESTAMP"),
            unit="iso",
            tolerance_s=600,
        ),
        delivery_id=Source(header="BOX-DELIVERY-ID"),
    ),
    Provider(
        name="mux",
        title="Mux",
        docs="https://www.mux.com/docs/core/verify-webhook-signatures",
        scheme=Signature(
            signature=Source(header="Mux-Signature", separator=",", prefix="v1="),
            signed="{timestamp}.{body}",
            timestamp=Source(header="Mux-Signature", separator=",", prefix="t="),
        ),
        delivery_id=Source(pointer="/id"),
    ),
    Provider(
        name="zendesk",
        title="Zendesk",
        docs="https://developer.zendesk.com/documentation/webhooks/verifying/",
        scheme=Signature(
            signature=Source(header="X-Zendesk-Webhook-Signature"),
            signed="{timestamp}{body}",
            encoding="base64",
            timestamp=Source(header="X-Zendesk-Webhook-Signature-Timestamp"),
            unit="iso",
        ),
        delivery_id=Source(header="X-Zendesk-Webhook-Invocation-Id"),
    ),
    Provider(
        name="workos",
        title="WorkOS",
        docs="https://workos.com/docs/events/data-syncing/webhooks",
        scheme=Signature(
            signature=Source(header="WorkOS-Signature", separator=",", prefix="v1="),
            signed="{timestamp}.{body}",
            timestamp=Source(header="WorkOS-Signature", separator=",", prefix="t="),
            unit="ms",
        ),
        delivery_id=Source(pointer="/id"),
    ),
    Provider(
        name="cloudflare-stream",
        title="Cloudflare Stream",
        docs="https://developers.cloudflare.com/stream/manage-video-library/using-webhooks/",
        scheme=Signature(
            signature=Source(header="Webhook-Signature", separator=",", prefix="sig1="),
            signed="{timestamp}.{body}",
            timestamp=Source(header="Webhook-Signature", separator=",", prefix="time="),
        ),
    ),
    Provider(
        name="twitch",
        title="Twitch EventSub",
        docs="https://dev.twitch.tv/docs/eventsub/handling-webhook-events/",
        scheme=Signature(
            signature=Source(header="Twitch-Eventsub-Message-Signature", prefix="sha256="),
            signed="{header:Twitch-Eventsub-Message-Id}{timestamp}{body}",
            timestamp=Source(header="Twitch-Eventsub-Message-Timestamp"),
            unit="iso",
            tolerance_s=600,
        ),
        delivery_id=Source(header="Twitch-Eventsub-Message-Id"),
        handshakes=(
            Handshake(
                where=((Source(header="Twitch-Eventsub-Message-Type"), "webhook_callback_verification"),),
                asks=Source(pointer="/challenge"),
            ),
        ),
    ),
    Provider(
        name="sinch",
        title="Sinch Conversation",
        docs="https://developers.sinch.com/docs/conversation/callbacks",
        scheme=Signature(
            signature=Source(header="x-sinch-webhook-signature"),
            signed="{body}.{header:x-sinch-webhook-signature-nonce}.{timestamp}",
            encoding="base64",
            timestamp=Source(header="x-sinch-webhook-signature-timestamp"),
        ),
        delivery_id=Source(header="x-sinch-webhook-signature-nonce"),
    ),
    Provider(
        name="mailgun",
        title="Mailgun",
        docs="https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks",
        scheme=Signature(
            signature=Source(pointer="/signature/signature"),
            signed="{timestamp}{pointer:/signature/token}",
            timestamp=Source(pointer="/signature/timestamp"),
        ),
        delivery_id=Source(pointer="/signature/token"),
    ),
)

_STANDARD = Signature(
    signature=Source(header="webhook-signature", separator=" ", prefix="v1,"),
    signed="{header:webhook-id}.{timestamp}.{body}",
    encoding="base64",
    key="whsec",
    timestamp=Source(header="webhook-timestamp"),
)
_SVIX = replace(
    _STANDARD,
    signature=Source(header="svix-signature", separator=" ", prefix="v1,"),
    signed="{header:svix-id}.{timestamp}.{body}",
    timestamp=Source(header="svix-timestamp"),
)
_WEBHOOK_ID, _SVIX_ID = Source(header="webhook-id"), Source(header="svix-id")

# Standard Webhooks, and Svix, from which it came.
_STANDARDS = (
    Provider(
        name="standard-webhooks",
        title="Standard Webhooks",
        docs="https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        scheme=_STANDARD,
        delivery_id=_WEBHOOK_ID,
    ),
    Provider(
        name="openai",
        title="OpenAI",
        docs="https://platform.openai.com/docs/guides/webhooks",
        scheme=_STANDARD,
        delivery_id=_WEBHOOK_ID,
    ),
    Provider(
        name="replicate",
        title="Replicate",
        docs="https://replicate.com/docs/topics/webhooks/verify-webhook",
        scheme=_STANDARD,
        delivery_id=_WEBHOOK_ID,
    ),
    Provider(
        name="svix",
        title="Svix",
        docs="https://docs.svix.com/receiving/verifying-payloads/how-manual",
        scheme=_SVIX,
        delivery_id=_SVIX_ID,
    ),
    Provider(
        name="clerk",
        title="Clerk",
        docs="https://clerk.com/docs/webhooks/overview",
        scheme=_SVIX,
        delivery_id=_SVIX_ID,
    ),
    Provider(
        name="resend",
        title="Resend",
        docs="https://resend.com/docs/dashboard/webhooks/verify-webhooks-requests",
        scheme=_SVIX,
        delivery_id=_SVIX_ID,
    ),
)

# The URL stands in the signed text: it must be known as the provider knows it (`url:` of the webhook).
_URL = (
    Provider(
        name="twilio",
        title="Twilio",
        docs="https://www.twilio.com/docs/usage/security#validating-requests",
        scheme=Signature(
            signature=Source(header="X-Twilio-Signature"),
            signed="{url}{form}",
            algorithm="hmac-sha1",
            encoding="base64",
            body_digest=Source(query="bodySHA256"),
        ),
        delivery_id=Source(header="I-Twilio-Idempotency-Token"),
    ),
    Provider(
        name="square",
        title="Square",
        docs="https://developer.squareup.com/docs/webhooks/step3validate",
        scheme=Signature(
            signature=Source(header="x-square-hmacsha256-signature"), signed="{url}{body}", encoding="base64"
        ),
        delivery_id=Source(pointer="/event_id"),
    ),
    Provider(
        name="hubspot",
        title="HubSpot",
        docs="https://developers.hubspot.com/docs/apps/legacy-apps/authentication/validating-requests",
        scheme=Signature(
            signature=Source(header="X-HubSpot-Signature-v3"),
            signed="{method}{url_decoded}{body}{timestamp}",
            encoding="base64",
            timestamp=Source(header="X-HubSpot-Request-Timestamp"),
            unit="ms",
        ),
    ),
    Provider(
        name="mandrill",
        title="Mailchimp Transactional (Mandrill)",
        json_field="mandrill_events",
        docs="https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/",
        scheme=Signature(
            signature=Source(header="X-Mandrill-Signature"),
            signed="{url}{form}",
            algorithm="hmac-sha1",
            encoding="base64",
        ),
    ),
    Provider(
        name="trello",
        title="Trello",
        docs="https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/",
        scheme=Signature(
            signature=Source(header="X-Trello-Webhook"),
            signed="{body}{url}",
            algorithm="hmac-sha1",
            encoding="base64",
        ),
        delivery_id=Source(pointer="/action/id"),
    ),
)

# Asymmetric: the secret is a public key, a key that is fetched, or a topic.
_ASYMMETRIC = (
    Provider(
        name="discord",
        title="Discord interactions",
        docs="https://docs.discord.com/developers/interactions/overview",
        scheme=Signature(
            signature=Source(header="X-Signature-Ed25519"),
            signed="{timestamp}{body}",
            algorithm="ed25519",
            timestamp=Source(header="X-Signature-Timestamp"),
        ),
        delivery_id=Source(pointer="/id"),
        handshakes=(Handshake(where=((Source(pointer="/type"), "1"),), answer={"type": 1}),),
        accepted={"type": 5},
    ),
    Provider(
        name="sendgrid",
        title="SendGrid event webhook",
        docs="https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features",
        scheme=Signature(
            signature=Source(header="X-Twilio-Email-Event-Webhook-Signature"),
            signed="{timestamp}{body}",
            algorithm="ecdsa-sha256",
            encoding="base64",
            timestamp=Source(header="X-Twilio-Email-Event-Webhook-Timestamp"),
        ),
    ),
    Provider(
        name="telnyx",
        title="Telnyx",
        docs="https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks",
        scheme=Signature(
            signature=Source(header="telnyx-signature-ed25519"),
            signed="{timestamp}|{body}",
            algorithm="ed25519",
            encoding="base64",
            timestamp=Source(header="telnyx-timestamp"),
        ),
        delivery_id=Source(pointer="/data/id"),
    ),
    Provider(
        name="wise",
        title="Wise",
        docs="https://docs.wise.com/guides/developer/webhooks/event-handling",
        scheme=Signature(signature=Source(header="X-Signature-SHA256"), algorithm="rsa-sha256", encoding="base64"),
        delivery_id=Source(header="X-Delivery-Id"),
    ),
    Provider(
        name="sns",
        title="Amazon SNS",
        json_as_text=True,
        docs="https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html",
        scheme=Sns(),
        delivery_id=Source(pointer="/MessageId"),
        handshakes=(
            Handshake(
                where=((Source(pointer="/Type"), "SubscriptionConfirmation"),), visit=Source(pointer="/SubscribeURL")
            ),
        ),
    ),
)

# The secret itself in the request: only as good as the connection's TLS.
_TOKENS = (
    Provider(
        name="gitlab",
        title="GitLab",
        docs="https://docs.gitlab.com/user/project/integrations/webhooks/",
        scheme=Token(token=Source(header="X-Gitlab-Token")),
        delivery_id=Source(header="Idempotency-Key"),
    ),
    Provider(
        name="telegram",
        title="Telegram bots",
        docs="https://core.telegram.org/bots/api#setwebhook",
        scheme=Token(token=Source(header="X-Telegram-Bot-Api-Secret-Token")),
        delivery_id=Source(pointer="/update_id"),
    ),
    Provider(
        name="figma",
        title="Figma",
        docs="https://developers.figma.com/docs/rest-api/webhooks-security/",
        scheme=Token(token=Source(pointer="/passcode")),
    ),
    Provider(
        name="microsoft-graph",
        title="Microsoft Graph",
        docs="https://learn.microsoft.com/en-us/graph/change-notifications-delivery-webhooks",
        scheme=Token(token=Source(pointer="/value/*/clientState")),
        handshakes=(Handshake(verified=False, asks=Source(query="validationToken")),),
    ),
    Provider(
        name="okta",
        title="Okta event hooks",
        docs="https://developer.okta.com/docs/concepts/event-hooks/",
        scheme=Token(token=_AUTHORIZATION),
        delivery_id=Source(pointer="/eventId"),
        handshakes=(
            Handshake(
                method="GET",
                verified=False,
                asks=Source(header="X-Okta-Verification-Challenge"),
                answer={"verification": "{asked}"},
            ),
        ),
    ),
    Provider(
        name="postmark",
        title="Postmark",
        docs="https://postmarkapp.com/developer/webhooks/webhooks-overview",
        scheme=Basic(),
    ),
    Provider(
        name="chargebee",
        title="Chargebee",
        docs="https://www.chargebee.com/docs/2.0/webhook_settings.html",
        scheme=Basic(),
        delivery_id=Source(pointer="/id"),
    ),
)

# JSON Web Tokens.
_JWTS = (
    Provider(
        name="plaid",
        title="Plaid",
        docs="https://plaid.com/docs/api/webhooks/webhook-verification/",
        scheme=Jwt(
            token=Source(header="Plaid-Verification"),
            algorithms=("ES256",),
            body_claim="request_body_sha256",
            fetched_key=True,
        ),
    ),
    Provider(
        name="messagebird",
        title="MessageBird",
        docs="https://developers.messagebird.com/api/#verifying-http-requests",
        scheme=Jwt(
            token=Source(header="MessageBird-Signature-JWT"),
            algorithms=("HS256", "HS384", "HS512"),
            body_claim="payload_hash",
            url_claim="url_hash",
            tolerance_s=1,
        ),
    ),
    Provider(
        name="vonage",
        title="Vonage",
        docs="https://developer.vonage.com/en/getting-started/concepts/webhooks#decoding-signed-webhooks",
        scheme=Jwt(token=_BEARER, body_claim="payload_hash"),
    ),
)

# For senders that are not here; `provider:` may be a map that changes a row (see docs/reference/webhooks.md).
_GENERIC_DOCS = "docs/reference/webhooks.md"
_GENERIC = (
    Provider(
        name="hmac",
        title="HMAC of the body",
        docs=_GENERIC_DOCS,
        scheme=Signature(signature=Source(header="X-Signature")),
    ),
    Provider(
        name="hmac-timestamp",
        title="HMAC of a timestamp and the body",
        docs=_GENERIC_DOCS,
        scheme=Signature(
            signature=Source(header="X-Signature"),
            signed="{timestamp}.{body}",
            timestamp=Source(header="X-Timestamp"),
        ),
    ),
    Provider(
        name="hmac-url",
        title="HMAC of the URL and the body",
        docs=_GENERIC_DOCS,
        scheme=Signature(signature=Source(header="X-Signature"), signed="{url}{body}"),
    ),
    Provider(
        name="ed25519",
        title="Ed25519",
        docs=_GENERIC_DOCS,
        scheme=Signature(signature=Source(header="X-Signature"), algorithm="ed25519", encoding="base64"),
    ),
    Provider(
        name="ecdsa",
        title="ECDSA with SHA-256",
        docs=_GENERIC_DOCS,
        scheme=Signature(signature=Source(header="X-Signature"), algorithm="ecdsa-sha256", encoding="base64"),
    ),
    Provider(
        name="rsa",
        title="RSA with SHA-256",
        docs=_GENERIC_DOCS,
        scheme=Signature(signature=Source(header="X-Signature"), algorithm="rsa-sha256", encoding="base64"),
    ),
    Provider(
        name="token",
        title="A token in a header",
        docs=_GENERIC_DOCS,
        scheme=Token(token=Source(header="X-Webhook-Token")),
    ),
    Provider(name="bearer", title="A bearer token", docs=_GENERIC_DOCS, scheme=Token(token=_BEARER)),
    Provider(name="basic", title="HTTP basic authentication", docs=_GENERIC_DOCS, scheme=Basic()),
    Provider(name="jwt", title="A JSON Web Token", docs=_GENERIC_DOCS, scheme=Jwt(token=_BEARER)),
)

PROVIDERS = {
    row.name: row for group in (_BODY, _TIMED, _STANDARDS, _URL, _ASYMMETRIC, _TOKENS, _JWTS, _GENERIC) for row in group
}
"""All providers by their names."""
