//! What Slack takes, in characters unless it says otherwise: the reference of Block Kit and of the methods,
//! <https://docs.slack.dev/reference/block-kit>. Whatever is longer is refused there as a whole message.

/// Blocks of a message.
pub const BLOCKS: usize = 50;
/// A header's text.
pub const HEADER: usize = 150;
/// A button's text, and that of an option.
pub const BUTTON: usize = 75;
/// Elements of a row of buttons.
pub const ACTIONS: usize = 25;
/// Options of a menu that hangs on a button.
pub const MENU: usize = 5;
/// Elements of a context block.
pub const CONTEXT: usize = 10;
/// A text object.
pub const TEXT: usize = 3000;
/// The title of a confirmation.
pub const CONFIRM_TITLE: usize = 100;
/// The text of a confirmation.
pub const CONFIRM_TEXT: usize = 300;
/// The buttons of a confirmation.
pub const CONFIRM_BUTTON: usize = 30;
/// The title of a modal, and its buttons.
pub const VIEW_TITLE: usize = 24;
/// The label of an input.
pub const LABEL: usize = 2000;
/// What an input takes at most.
pub const INPUT: usize = 3000;
/// Options of a menu.
pub const OPTIONS: usize = 100;
/// What an app keeps with a modal.
pub const METADATA: usize = 3000;

/// All blocks of a message together, bytes of JSON. Slack publishes no number and refuses messages with
/// `msg_blocks_too_long` from about 13,200 on (slackapi/bolt-js issue 2509).
pub const WHOLE: usize = 11_000;

/// One value shown in a message, bytes of JSON; what is longer is read on the web page.
pub const SHOWN: usize = 2000;
